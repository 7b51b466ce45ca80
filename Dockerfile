# CPU image with the environment built; not built by its authors, who had no builder at hand.
#   docker build -t salattack --build-arg TORCH_INDEX=<index of CPU builds of torch> .
#   docker run salattack make reproduce
#   docker run salattack make test
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /salattack
COPY . .
ARG TORCH_INDEX=
RUN make .venv/ready TORCH_INDEX="$TORCH_INDEX"
CMD ["make", "reproduce"]

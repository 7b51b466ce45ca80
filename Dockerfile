# Image with the environment built, for a CPU. The authors have not built it.
#   docker build -t salattack --build-arg TORCH_INDEX=<index of CPU builds of torch> .
#   docker run -v "$PWD/results:/salattack/results" salattack make reproduce
#   docker run salattack make test
FROM python:3.11-slim AS base
RUN apt-get update && apt-get install -y --no-install-recommends git make && rm -rf /var/lib/apt/lists/*

FROM base
WORKDIR /salattack
COPY . .
ARG TORCH_INDEX=
RUN make .venv/ready TORCH_INDEX="$TORCH_INDEX"
CMD ["make", "reproduce"]

"""Training of the shipped networks, apart from the attack core, which never imports it."""

"""Prints a port that nobody listens on, below those that the kernel gives to clients."""

import random
import socket

while True:
    port = random.randint(20000, 32000)
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            continue
    print(port)
    break

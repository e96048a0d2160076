"""A service for tests, as small as Python allows: ``listening_service.py ADDRESS PORT``."""

import socket
import sys

listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((sys.argv[1], int(sys.argv[2])))
listener.listen(64)
while True:
    listener.accept()[0].close()

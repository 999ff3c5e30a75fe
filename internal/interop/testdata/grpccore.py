# Calls METHOD of the server at ADDRESS by gRPC's C core, which is also below gRPC for C++, Ruby and PHP. Messages come in and go out
# as lines of hexadecimal digits. With a file of CA certificates, it speaks TLS.
import sys

import grpc

address, method, *ca = sys.argv[1:]
if ca:
    with open(ca[0], "rb") as file:
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(file.read()))
else:
    channel = grpc.insecure_channel(address)
with channel:
    requests = (bytes.fromhex(line) for line in iter(sys.stdin.readline, ""))
    for response in channel.stream_stream(method)(requests):
        print(response.hex(), flush=True)

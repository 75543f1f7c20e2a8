"""The Open Inference Protocol in Triton's dialect, over HTTP and gRPC.

access     who asks, and what they may do            refusals   errors with their codes
inference  requests checked and answered, either way regions    system shared memory
control    everything but inference, as JSON values
http_infer the HTTP route that has to be fast        http       the other routes
grpc_server the same calls over gRPC
"""

"""Serving under load: our daemon, the simulator and other servers, driven the same way.

targets      what can be driven, by name: how each is started and what it needs
models       what a workload's tenants send, and the ONNX files that peers run
peer_server  the HTTP server around runtimes that have none; runtimes: onnxruntime, OpenVINO
exchange     the wire format of these servers, and of Ray Serve's deployments
triton       a model repository for tritonserver, and the process; mlserver, rayserve: likewise
environments where peers with packages of their own live
partition    the best static partition of the cores, by search
probe        one rate on one running target; search: the highest rate that holds
compare      targets × runs in turns: rows; page: the HTML report
usage        processor time, memory, descriptors and threads of a process and its children
chaos, soak  lanes killed and hung under load; a long run watched for growth and drift
"""

"""The joint between compiling and serving: a directory that holds a compiled model.

manifest.json   what is inside, with digests (`tenantdl.bundle.manifest`)
kernels.so      one library of operators
weights.bin     packed weights, 64-byte aligned, in execution order
"""

"""The network, its kernels, its key-value cache and its artifact."""

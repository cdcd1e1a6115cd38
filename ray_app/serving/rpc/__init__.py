"""gRPC beside HTTP: the same application, asked in protocol buffers."""

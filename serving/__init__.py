"""The gRPC service over `ovperception`."""

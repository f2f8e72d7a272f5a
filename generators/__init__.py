"""The candidate generators: five retrievers behind one gRPC contract, and what they share."""

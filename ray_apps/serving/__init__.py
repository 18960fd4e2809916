"""HTTP on Ray Serve: protocol, access, application, deployment."""

"""HTTP and WebSocket API: routes, messages, security, OpenAPI and AsyncAPI documents."""

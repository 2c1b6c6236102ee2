"""The HTTP application: routes, schemas, middleware, metrics and the server that runs them."""

"""Settings, and the service that is composed from them."""

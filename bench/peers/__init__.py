"""What the service is measured beside: small programs, each as people would write it."""

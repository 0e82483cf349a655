"""HTTP, kept thin: what comes in, who asks, what goes out."""

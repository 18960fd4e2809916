"""Search over a space of parameters: who asks, who trains, who decides."""

"""Mode "stream": blocks that share their multipliers over time, folded to one pace and connected by streams."""

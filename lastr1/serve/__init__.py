"""Real robots: a policy server that speaks openpi's websocket protocol, and the robot's side of it."""

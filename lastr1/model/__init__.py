"""The policy: prompt in, thought and chunk out.  It does not know that simulators exist."""

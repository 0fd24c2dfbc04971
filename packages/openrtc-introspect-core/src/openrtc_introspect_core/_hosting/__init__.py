"""AgentPool: hosts agents' sessions as coroutines or processes."""

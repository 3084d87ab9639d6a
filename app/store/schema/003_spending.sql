-- What runs cost, and which of their levels used how much.

-- In millionths of the currency of the prices, as they were when each call ended; NULL: nothing of it had a price.
ALTER TABLE runs ADD COLUMN cost INTEGER;

-- 1: some of its calls were of models without a price, so it cost more than that.
ALTER TABLE runs ADD COLUMN unpriced INTEGER NOT NULL DEFAULT 0;

-- JSON [{"path": [call ids], "agent", "steps", "usage": {"input", "output", "cached", "estimated", "cost", "unpriced"}}],
-- without "path" for the run's own agent; empty for runs that ended before these columns were there.
ALTER TABLE runs ADD COLUMN levels TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(levels));

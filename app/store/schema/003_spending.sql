-- What runs cost, and which of their levels used how much.

ALTER TABLE runs ADD COLUMN
    cost            INTEGER;            -- in millionths of the currency of the prices; NULL: nothing of it had a price
ALTER TABLE runs ADD COLUMN
    unpriced        INTEGER NOT NULL DEFAULT 0;  -- 1: some calls were of models without a price: it cost more than that
ALTER TABLE runs ADD COLUMN
    levels          TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(levels));
                                        -- JSON [{"path": [call ids], "agent", "steps", "usage"}], also of sub-agents that
                                        -- have ended; empty for runs of the time before this column

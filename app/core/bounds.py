"""The bounds of PROTOCOL.md §4 that are the contract's own; those that are settings come in `Rules`."""

TEXT_BYTES_MAX = 65_536
"""UTF-8 bytes of a prompt's or hint's text."""

TITLE_CHARS_MAX = 200

REASON_CHARS_MAX = 4_000
"""Characters of a denial's reason or of a settled result."""

ATTEMPT_CHARS_MAX = 262_144
"""Characters of one attempt's text; the attempt ends there with finish "limit"."""

ATTEMPT_BYTES_MAX = 800_000
"""Encoded bytes of all that one attempt may bring (text, reasoning, calls): its end fits one event."""

RESULT_CHARS_MAX = 65_536
"""Characters of a tool's result or arguments in an event; the whole is kept and readable by reference."""

NOTE_CHARS_MAX = 4_000
NOTES_MAX = 200
"""Characters of a note, and notes of a conversation."""

NOTES_TOLD_CHARS_MAX = 16_000
"""Characters of notes that every model call gets; where there are more, the oldest are left out and counted."""

EVENT_BYTES_MAX = 900_000
FRAME_BYTES_MAX = 1_000_000
"""Encoded bytes of an event, and of a frame to the client."""

CONTINUATION_BYTES_MAX = 16_777_216
"""Encoded bytes of a continuation that leaves: the whole log is in it, and what is kept beside the log."""

CLIENT_FRAME_BYTES_MAX = 262_144
JSON_DEPTH_MAX = 32

CALLS_MAX = 128
"""Tool calls that one reply may ask for; one that asks for more ends with them, and with `finish:"limit"`."""

RETRY_AFTER_MS_MAX = 60_000
"""A provider's Retry-After is obeyed up to here."""

RETRY_FIRST_MS = 500
RETRY_DELAY_MS_MAX = 30_000
"""Back-off without Retry-After: full jitter below 0.5 s * 2^n, at most 30 s."""

RETRY_FLOOR_MS = 100
"""No retry comes sooner: a provider that says 0 is not asked in a hot loop."""

DESCRIPTION_BYTES_MAX = 400_000
"""Encoded bytes of an agent's instructions and tools: they fit the event that describes it."""

CALL_CHARS_MAX = 256
"""Of the id that a provider gives to a call; a longer one is cut."""

DEPTH_MAX = 8
"""Sub-agents inside each other."""

CHILDREN_MAX = 8
"""Sub-agents that one level has at work at a time; more calls wait."""

LEVELS_MAX = 64
"""Levels of a run at a time; a sub-agent beyond it fails at once."""

LEVELS_LISTED_MAX = 256
"""Levels of a run, closed ones included, whose usage is listed; what more of them use counts where they were called."""

CEILING_MAX = 10**12
"""No ceiling that a person gives is higher."""

TOKENS_TOLD_MAX = 10**9
"""A provider that says that one call took more tokens is not believed."""

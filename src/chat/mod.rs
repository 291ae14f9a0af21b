//! Conversation <-> prompt <-> tokens <-> text: everything that knows Qwen3.5's text conventions.

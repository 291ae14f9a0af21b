//! An answer's text, cut into reasoning, content and tool calls as it arrives.
//!
//! Qwen3.5 writes an answer as
//!
//! ```text
//! reasoning            opened by the prompt's `<think>`, or by one of its own
//! </think>
//!
//! content
//!
//! <tool_call>
//! <function=NAME>
//! <parameter=KEY>
//! VALUE
//! </parameter>
//! </function>
//! </tool_call>
//! ```
//!
//! `prose` reads what stands outside of calls, `call` what stands inside, with `schema` and `cast` for the values' types;
//! `tags` compares both with the tags.
//!
//! # Rules
//!
//! * Text is read once, from left to right, and nothing that was passed on is taken back. A decision waits until the
//!   text allows only one: so the pieces do not depend on how the text was cut into chunks.
//! * Only what may become a tag waits, and whitespace that may turn out to be a separator. What waits is short
//!   (`tags` bounds it), so the work is linear in the answer.
//! * Whitespace before a tag is dropped. So are newlines between a tag and the first text of its block, and whitespace
//!   between a tag and the answer's end. Whatever other whitespace there is stays.
//! * What is no tag of ours is text, a malformed call too: a wrong answer is not an error.
//! * When an answer is cut off, what waits is dropped: half a tag is of no use, and so the pieces are a beginning of the
//!   whole answer's. When the answer ended by itself, what waits was text.

mod call;
mod cast;
mod pieces;
#[cfg(test)]
mod properties;
mod prose;
mod schema;
mod tags;
#[cfg(test)]
mod tests;
mod value;

use call::Call;
use pieces::Pieces;
use prose::Prose;
use schema::Functions;

/// A piece of an answer, in the order in which the model wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Reasoning(String),
    Content(String),
    ToolCall(ToolCallDelta),
}

/// A part of a tool call. The arguments of a call's deltas together are a JSON object, unless the answer was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCallDelta {
    /// Which call of this answer, from 0.
    pub index: usize,
    /// The function's name: in the first delta of a call, and only there.
    pub name: Option<String>,
    /// What is added to the arguments, a JSON text.
    pub arguments: String,
}

/// Cuts the text of one answer.
pub struct OutputParser {
    functions: Functions,
    prose: Prose,
    /// The call that is being read.
    call: Option<Call>,
    num_tool_calls: usize,
    /// The beginning of what may become a tag.
    held: String,
}

impl OutputParser {
    /// `opens_thinking`: the prompt ended inside an open `<think>` block. `tools`: what the request declares, in
    /// OpenAI's form or as bare functions; where there are none, no call is parsed.
    pub fn new(opens_thinking: bool, tools: &[serde_json::Value]) -> OutputParser {
        let functions = Functions::declared(tools);
        let prose = if opens_thinking { Prose::in_reasoning() } else { Prose::at_start() };
        OutputParser { functions, prose, call: None, num_tool_calls: 0, held: String::new() }
    }

    /// The pieces that became certain with this text.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        let mut pieces = Pieces::default();
        let text = std::mem::take(&mut self.held) + text;
        let read = self.read(&text, &mut pieces);
        self.held.push_str(&text[read..]);
        pieces.into_vec()
    }

    /// What is left when no text follows. `complete`: the answer ended by itself (end of sequence or stop string), and
    /// was not cut off by a limit. A complete answer that ends inside a call closes it; one that was cut off leaves the
    /// arguments as they are.
    pub fn finish(&mut self, complete: bool) -> Vec<Piece> {
        let mut pieces = Pieces::default();
        let held = std::mem::take(&mut self.held);
        match self.call.take() {
            _ if !complete => {}
            Some(call) => call.close(&mut pieces),
            None => {
                self.prose.write(&held, &self.functions, &mut pieces);
                self.prose.finish(&mut pieces);
            }
        }
        pieces.into_vec()
    }

    /// Calls begun so far.
    pub fn num_tool_calls(&self) -> usize {
        self.num_tool_calls
    }

    /// Reads `text` until its rest may become a tag, and says how many bytes that was.
    fn read(&mut self, text: &str, pieces: &mut Pieces) -> usize {
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            match &mut self.call {
                Some(call) => match call.read(rest, pieces) {
                    call::Step::Read(length) => at += length,
                    call::Step::Closed(length) => {
                        self.call = None;
                        at += length;
                    }
                    call::Step::Unclear => break,
                },
                None => match self.prose.read(rest, &self.functions, pieces) {
                    prose::Step::Read(length) => at += length,
                    prose::Step::Call(name, length) => {
                        self.begin_call(name, pieces);
                        at += length;
                    }
                    prose::Step::Unclear => break,
                },
            }
        }
        at
    }

    fn begin_call(&mut self, name: &str, pieces: &mut Pieces) {
        self.call = Some(Call::begin(self.num_tool_calls, name, self.functions.parameters(name), pieces));
        self.num_tool_calls += 1;
    }
}

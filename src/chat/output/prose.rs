//! What stands outside of tool calls: reasoning, content, and the tags between them.

use super::pieces::Pieces;
use super::schema::Functions;
use super::tags::{self, Front};

/// The reader of an answer's reasoning and content.
pub struct Prose {
    block: Block,
    last: Last,
    /// Whitespace that the next text or tag decides about.
    space: String,
    /// A `<tool_call>` is not closed: other functions may follow, and its `</tool_call>`.
    in_tool_call: bool,
    /// Each `<think>` that was content, and whose `</think>` is therefore content as well.
    num_literal_thinks: usize,
}

/// What `read` found.
pub enum Step<'t> {
    /// So many bytes were read.
    Read(usize),
    /// So many bytes were a call's head, with the function's name.
    Call(&'t str, usize),
    /// All of the text may be a tag's beginning.
    Unclear,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Reasoning,
    Content,
}

/// What came last, whitespace aside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// Nothing: the answer begins.
    Nothing,
    /// A tag, and the block has no text yet.
    TagBeforeText,
    /// A tag, behind text of the block.
    TagAfterText,
    Text,
}

enum Tag<'t> {
    Think,
    EndOfThink,
    Call(&'t str),
    EndOfToolCall,
}

impl Prose {
    /// The reader of an answer that the prompt left in an open `<think>` block.
    pub fn in_reasoning() -> Prose {
        Prose { block: Block::Reasoning, last: Last::TagBeforeText, ..Prose::at_start() }
    }

    /// The reader of an answer that is content, until it says otherwise.
    pub fn at_start() -> Prose {
        Prose {
            block: Block::Content,
            last: Last::Nothing,
            space: String::new(),
            in_tool_call: false,
            num_literal_thinks: 0,
        }
    }

    /// Reads text up to a tag, or a tag.
    pub fn read<'t>(&mut self, text: &'t str, functions: &Functions, pieces: &mut Pieces) -> Step<'t> {
        let before_tag = text.find('<').unwrap_or(text.len());
        if before_tag > 0 {
            self.write(&text[..before_tag], functions, pieces);
            return Step::Read(before_tag);
        }
        match self.tag(text, functions) {
            Front::Tag(Tag::Call(name), length) => {
                self.pass_tag();
                self.in_tool_call = true;
                Step::Call(name, length)
            }
            Front::Tag(Tag::EndOfToolCall, length) => {
                self.pass_tag();
                self.in_tool_call = false;
                Step::Read(length)
            }
            Front::Tag(Tag::Think, length) => {
                self.open_think(functions, pieces);
                Step::Read(length)
            }
            Front::Tag(Tag::EndOfThink, length) => {
                self.close_think(functions, pieces);
                Step::Read(length)
            }
            Front::Unclear => Step::Unclear,
            Front::Other => {
                self.write("<", functions, pieces);
                Step::Read(1)
            }
        }
    }

    /// Passes text on, but not whitespace at its end where that may turn out to be a separator.
    pub fn write(&mut self, text: &str, functions: &Functions, pieces: &mut Pieces) {
        let body = text.trim_ascii_end();
        if !body.is_empty() {
            let space = std::mem::take(&mut self.space);
            let whole = space + body;
            let newlines: &[char] = if self.last == Last::TagBeforeText { &['\n', '\r'] } else { &[] };
            self.pass(whole.trim_start_matches(newlines), pieces);
            self.last = Last::Text;
        }
        let space = &text[body.len()..];
        let tag_may_follow = self.block == Block::Reasoning || !functions.is_empty();
        if tag_may_follow || self.last != Last::Text {
            self.space.push_str(space);
        } else {
            self.pass(space, pieces);
        }
    }

    /// The answer ended: whitespace behind text belongs to it, and so does whitespace that is the whole answer.
    pub fn finish(&mut self, pieces: &mut Pieces) {
        let space = std::mem::take(&mut self.space);
        if matches!(self.last, Last::Nothing | Last::Text) {
            self.pass(&space, pieces);
        }
    }

    fn pass(&self, text: &str, pieces: &mut Pieces) {
        match self.block {
            Block::Reasoning => pieces.reasoning(text),
            Block::Content => pieces.content(text),
        }
    }

    fn tag<'t>(&self, text: &'t str, functions: &Functions) -> Front<Tag<'t>> {
        let think = tags::fixed(text, tags::THINK).map(|()| Tag::Think);
        let mut tag = think.or(tags::fixed(text, tags::END_OF_THINK).map(|()| Tag::EndOfThink));
        if functions.is_empty() {
            return tag;
        }
        tag = tag.or(tags::call(text).map(Tag::Call));
        if self.in_tool_call {
            tag = tag.or(tags::fixed(text, tags::END_OF_TOOL_CALL).map(|()| Tag::EndOfToolCall));
        }
        tag.or(self.bare_function(text, functions).map(Tag::Call))
    }

    /// `<function=NAME>` without its own `<tool_call>`: one more function of an open one; or, in content, at the start
    /// of a line and of a declared name, a call whose `<tool_call>` the model forgot.
    fn bare_function<'t>(&self, text: &'t str, functions: &Functions) -> Front<&'t str> {
        let after_tag = self.last != Last::Text;
        let another = self.in_tool_call && after_tag;
        let forgotten = self.block == Block::Content && (after_tag || self.space.contains('\n'));
        match tags::function(text) {
            Front::Tag(name, length) if another || (forgotten && functions.declares(name)) => Front::Tag(name, length),
            Front::Unclear if another || forgotten => Front::Unclear,
            _ => Front::Other,
        }
    }

    /// `<think>` opens a block unless text of the block stands before it; there it is text, as in an answer about tags.
    fn open_think(&mut self, functions: &Functions, pieces: &mut Pieces) {
        if self.last != Last::Text {
            return self.enter(Block::Reasoning);
        }
        if self.block == Block::Content {
            self.num_literal_thinks += 1;
        }
        self.write(tags::THINK, functions, pieces);
    }

    /// `</think>` ends reasoning. In content it is dropped, because the model closed a block that is not open, but if a
    /// `<think>` was text then so is its end.
    fn close_think(&mut self, functions: &Functions, pieces: &mut Pieces) {
        if self.block == Block::Reasoning {
            self.enter(Block::Content);
        } else if self.num_literal_thinks > 0 {
            self.num_literal_thinks -= 1;
            self.write(tags::END_OF_THINK, functions, pieces);
        } else {
            self.pass_tag();
        }
    }

    fn enter(&mut self, block: Block) {
        self.block = block;
        self.last = Last::TagBeforeText;
        self.space.clear();
    }

    /// A tag was read that leaves the block open.
    fn pass_tag(&mut self) {
        self.last = match self.last {
            Last::Nothing | Last::TagBeforeText => Last::TagBeforeText,
            Last::Text | Last::TagAfterText => Last::TagAfterText,
        };
        self.space.clear();
    }
}

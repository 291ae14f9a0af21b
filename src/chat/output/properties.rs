//! Properties of generated answers: well-formed ones, cut ones, and any that tags can be made into.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value};

use super::tests::{characters, joined, parse, tools};
use super::{OutputParser, Piece};

/// A parameter as the model writes it, and what it means.
type Parameter = (&'static str, String, Value);

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Call { function: &'static str, parameters: Vec<Parameter> },
}

#[derive(Clone, Debug)]
struct Answer {
    /// `None`: no thinking. The parts of what was thought, which the prompt opened or the answer itself.
    thought: Option<(bool, Vec<Part>)>,
    said: Vec<Part>,
    /// What the model writes between the tags of a call.
    between_tags: &'static str,
}

impl Answer {
    fn parser(&self) -> OutputParser {
        OutputParser::new(matches!(self.thought, Some((true, _))), &tools())
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if let Some((opened_by_prompt, parts)) = &self.thought {
            text += if *opened_by_prompt { "" } else { "<think>\n" };
            text += &self.block(parts);
            text += "\n</think>\n\n";
        }
        text + &self.block(&self.said)
    }

    fn block(&self, parts: &[Part]) -> String {
        let texts: Vec<String> = parts.iter().map(|part| self.part(part)).collect();
        texts.join("\n\n")
    }

    fn part(&self, part: &Part) -> String {
        let (function, parameters) = match part {
            Part::Text(text) => return text.clone(),
            Part::Call { function, parameters } => (function, parameters),
        };
        let space = self.between_tags;
        let mut text = format!("<tool_call>{space}<function={function}>{space}");
        for (key, value, _) in parameters {
            text += &format!("<parameter={key}>\n{value}\n</parameter>{space}");
        }
        text + "</function>" + space + "</tool_call>"
    }

    /// The pieces, with arguments as values: what was generated, not what was parsed.
    fn expected(&self) -> Vec<Meaning> {
        let mut expected = Vec::new();
        if let Some((_, parts)) = &self.thought {
            expect(parts, Meaning::Reasoning, &mut expected);
        }
        expect(&self.said, Meaning::Content, &mut expected);
        expected
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Meaning {
    Reasoning(String),
    Content(String),
    Call(String, Value),
}

fn expect(parts: &[Part], text_of: fn(String) -> Meaning, expected: &mut Vec<Meaning>) {
    let mut texts_so_far = 0;
    for part in parts {
        match part {
            Part::Text(text) => {
                let separator = if texts_so_far > 0 { "\n\n" } else { "" };
                expected.push(text_of(format!("{separator}{text}")));
                texts_so_far += 1;
            }
            Part::Call { function, parameters } => {
                let members = parameters.iter().map(|(key, _, value)| ((*key).to_owned(), value.clone()));
                expected.push(Meaning::Call((*function).to_owned(), members.collect::<Map<_, _>>().into()));
            }
        }
    }
}

fn meanings(pieces: &[Piece]) -> Vec<Meaning> {
    let meaning = |piece: &Piece| match piece {
        Piece::Reasoning(text) => Meaning::Reasoning(text.clone()),
        Piece::Content(text) => Meaning::Content(text.clone()),
        Piece::ToolCall(call) => Meaning::Call(
            call.name.clone().expect("a joined call has its name"),
            serde_json::from_str(&call.arguments).expect("the arguments are JSON"),
        ),
    };
    pieces.iter().map(meaning).collect()
}

/// Text that no part of is a tag, though it looks like one in places.
fn text() -> impl Strategy<Value = String> {
    let words = select(vec![
        "a",
        "Zürich",
        "😀",
        "a<b",
        "<",
        "</",
        "<b>",
        "<table>",
        "<tool_call> of",
        "<tool_call>{}</tool_call> is",
        "<tool_call>\n<function> is",
        "see <function=now> and",
        "</parameter>",
        "</function>",
        "<parameter=city>",
        "\"",
        "\\",
        "{",
        "line\n\n",
        "\t",
        "<thin",
        "</tool",
    ]);
    vec(words, 0..8).prop_map(|words| format!("So {} on.", words.join(" ")))
}

fn string() -> impl Strategy<Value = String> {
    let fragments = select(vec![
        "\n",
        "\n\n",
        " ",
        "a",
        "é",
        "😀",
        "\"",
        "\\",
        "\t",
        "\u{1}",
        "<",
        "</",
        "</parameter",
        "<parameter=days>",
        "</function>",
        "</tool_call>",
        "<tool_call>\n<function=now>\n",
        "</think>",
        "<think>",
        "null",
        "5",
        "{\"a\": 1}",
    ]);
    vec(fragments, 0..12).prop_map(|fragments| fragments.concat())
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        string().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((string(), inner), 0..4).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A value as the template writes it.
fn written(key: &'static str, value: impl Strategy<Value = Value>) -> impl Strategy<Value = Parameter> {
    (value, any::<bool>()).prop_map(move |(value, is_pretty)| {
        let text = match &value {
            Value::String(text) => text.clone(),
            Value::Bool(true) => "True".to_owned(),
            Value::Null => "None".to_owned(),
            value if is_pretty => format!("{value:#}"),
            value => value.to_string(),
        };
        (key, text, value)
    })
}

fn parameters() -> impl Strategy<Value = Vec<Parameter>> {
    let array = vec(json(), 0..4).prop_map(Value::from);
    let object = vec((string(), json()), 0..4).prop_map(|members| Value::Object(members.into_iter().collect()));
    let note =
        prop_oneof![Just(Value::Null), string().prop_filter("null", |text| text != "null").prop_map(Value::from)];
    let id = prop_oneof![any::<i64>().prop_map(Value::from), string().prop_map(|text| Value::from(text + "x"))];
    let all = (
        option::of(written("city", string().prop_map(Value::from))),
        option::of(written("days", any::<i64>().prop_map(Value::from))),
        option::of(written("ratio", (-1e300..1e300f64).prop_map(Value::from))),
        option::of(written("metric", any::<bool>().prop_map(Value::from))),
        option::of(written("nothing", Just(Value::Null))),
        option::of(written("list", array)),
        option::of(written("place", object)),
        option::of(written("note", note)),
        option::of(written("id", id)),
        option::of(written("undeclared", string().prop_map(Value::from))),
    );
    let listed =
        all.prop_map(|(a, b, c, d, e, f, g, h, i, j)| [a, b, c, d, e, f, g, h, i, j].into_iter().flatten().collect());
    listed.prop_shuffle().prop_filter("the tag is the end", |parameters: &Vec<Parameter>| {
        parameters.iter().all(|(_, text, _)| !text.contains("</parameter>"))
    })
}

fn call() -> impl Strategy<Value = Part> {
    prop_oneof![
        parameters().prop_map(|parameters| Part::Call { function: "weather", parameters }),
        Just(Part::Call { function: "now", parameters: vec![] }),
    ]
}

/// Texts and calls, but no two texts in a row, which would be one.
fn parts() -> impl Strategy<Value = Vec<Part>> {
    vec(prop_oneof![text().prop_map(Part::Text), call()], 0..5).prop_map(|mut parts| {
        parts.dedup_by(|one, other| matches!((one, other), (Part::Text(_), Part::Text(_))));
        parts
    })
}

fn answer() -> impl Strategy<Value = Answer> {
    (option::of((any::<bool>(), parts())), parts(), select(vec!["\n", "", " ", "\n\n  "]))
        .prop_map(|(thought, said, between_tags)| Answer { thought, said, between_tags })
}

/// Anything that tags can be made into.
fn wild() -> impl Strategy<Value = String> {
    let fragments = select(vec![
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<function=now>",
        "<function=weather>",
        "<function=odd>",
        "<function=",
        "</function>",
        "<parameter=city>",
        "<parameter=days>",
        "<parameter=note>",
        "<parameter=",
        "</parameter>",
        "\n",
        " ",
        "<",
        ">",
        "/",
        "a",
        "1",
        "é",
        "null",
        "tool_call>",
        "<tool_",
        "</para",
        "</th",
        "\"",
        "\\",
    ]);
    vec(fragments, 0..40).prop_map(|fragments| fragments.concat())
}

/// The text cut at some of its characters.
fn chunks<'t>(text: &'t str, lengths: &[usize]) -> Vec<&'t str> {
    let (mut rest, mut chunks) = (text, Vec::new());
    for length in lengths.iter().cycle().take(text.len()) {
        let (chunk, after) = rest.split_at(rest.ceil_char_boundary(*length));
        chunks.push(chunk);
        rest = after;
    }
    chunks.push(rest);
    chunks
}

/// Whether `pieces` are what the pieces of a longer answer begin with.
fn begin(pieces: &[Piece], longer: &[Piece]) -> bool {
    let Some((last, before)) = pieces.split_last() else { return true };
    let is_begun = match (last, longer.get(before.len())) {
        (Piece::Reasoning(one), Some(Piece::Reasoning(other))) => other.starts_with(one),
        (Piece::Content(one), Some(Piece::Content(other))) => other.starts_with(one),
        (Piece::ToolCall(one), Some(Piece::ToolCall(other))) => {
            one.name == other.name && other.arguments.starts_with(&one.arguments)
        }
        _ => false,
    };
    is_begun && longer.starts_with(before)
}

proptest! {
    #[test]
    fn a_well_formed_answer_is_what_it_was_made_of(answer in answer(), lengths in vec(0..9usize, 1..9)) {
        let text = answer.text();
        let (pieces, num_tool_calls) = parse(answer.parser(), [text.as_str()], true);
        prop_assert_eq!(meanings(&pieces), answer.expected(), "{:?}", text);
        let expected_calls = answer.expected().iter().filter(|part| matches!(part, Meaning::Call(..))).count();
        prop_assert_eq!(num_tool_calls, expected_calls);
        prop_assert_eq!(&parse(answer.parser(), characters(&text), true).0, &pieces);
        prop_assert_eq!(&parse(answer.parser(), chunks(&text, &lengths), true).0, &pieces);
    }

    #[test]
    fn an_answer_that_was_cut_off_is_the_beginning_of_the_whole(answer in answer()) {
        let text = answer.text();
        let (whole, _) = parse(answer.parser(), [text.as_str()], true);
        let mut parser = answer.parser();
        let mut so_far = Vec::new();
        for chunk in characters(&text) {
            so_far = joined(so_far.into_iter().chain(parser.push(chunk)));
            prop_assert!(begin(&so_far, &whole), "{:?} of {:?}", so_far, whole);
        }
        prop_assert_eq!(parser.finish(false), []);
    }

    #[test]
    fn any_text_is_read_alike_however_it_is_cut(
        text in wild(),
        lengths in vec(0..9usize, 1..9),
        opens_thinking: bool,
        has_tools: bool,
        complete: bool,
    ) {
        let tools = if has_tools { tools() } else { vec![] };
        let new = || OutputParser::new(opens_thinking, &tools);
        let (whole, num_tool_calls) = parse(new(), [text.as_str()], complete);
        prop_assert_eq!(&parse(new(), characters(&text), complete).0, &whole);
        prop_assert_eq!(&parse(new(), chunks(&text, &lengths), complete).0, &whole);
        prop_assert!(has_tools || num_tool_calls == 0);
        if complete {
            meanings(&whole);
        }
    }

    /// What a push costs is the chunk and what waited, so this bounds the work: an answer is never read again.
    #[test]
    fn what_waits_is_short(text in wild(), opens_thinking: bool) {
        let mut parser = OutputParser::new(opens_thinking, &tools());
        for chunk in characters(&text) {
            parser.push(chunk);
            prop_assert!(parser.held.len() < 400, "{} bytes wait", parser.held.len());
        }
    }
}

proptest! {
    // Every answer is read once for every place where it may end.
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn an_answer_that_ends_anywhere_has_complete_calls(answer in answer()) {
        let text = answer.text();
        let mut num_tool_calls_before = 0;
        for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
            let (pieces, num_tool_calls) = parse(answer.parser(), [&text[..end]], true);
            let calls = meanings(&pieces).into_iter().filter(|part| matches!(part, Meaning::Call(..))).count();
            prop_assert_eq!(num_tool_calls, calls);
            prop_assert!(num_tool_calls >= num_tool_calls_before);
            num_tool_calls_before = num_tool_calls;
        }
    }
}

#[test]
fn nothing_long_makes_much_wait() {
    let heads = ["", "<tool_call>", "<tool_call><function=", "<function=", "<tool_call><function=weather><parameter="];
    let values = ["city>", "note>", "days>", "list>"].map(|key| format!("{}{key}", heads[4]));
    for head in heads.into_iter().chain(values.iter().map(String::as_str)) {
        for repeated in ["x", " ", "\n", "<", "\n<", "é"] {
            let mut parser = OutputParser::new(true, &tools());
            parser.push(head);
            for _ in 0..20_000 {
                parser.push(repeated);
                assert!(parser.held.len() < 400, "{head:?}, then {repeated:?}: {} bytes wait", parser.held.len());
            }
        }
    }
}

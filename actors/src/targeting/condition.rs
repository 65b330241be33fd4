//! Conditions: expressions of CEL over what a server knows of a device.
//!
//! ```text
//! facts.ram_bytes >= 536870912 && labels.channel != "lab"
//! has(facts.modem) && site in ["berlin", "paris"]
//! labels["example.com/rack"].startsWith("b") || !online
//! ```
//! `labels` and `facts` are maps; `name`, `id`, `site`, `platform`, `os` and `arch` are strings, and `online` is a bool.
//! A label is always a string. A fact is an int where its text is one as a number is written (`512`, not `0512`), a
//! bool where it is `true` or `false`, and else a string; `facts.ram_bytes` is `facts.memory_bytes` by its common name.
//! A condition that asks for what a device does not have is undecided there, unless the rest of it decides: such a
//! device is not meant.
//!
//! Nothing that a condition says can take long: it has so many bytes, so deep a nesting and so many steps, each bounded
//! by a limit, and nothing in it walks over a list or a map.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, SelectExpr, operators};
use cel::common::traits::{Container, Indexer};
use cel::common::types::{CelBool, CelInt, CelString, DYN_TYPE, Type};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::parser::PrattParser;
use cel::{Context, Env, ExecutionError, Value};
use fleetd_sync_core::limit;

use super::attribute::{Attribute, Described};
use super::{Answer, ParseConditionError, Undecided};

/// The functions that a condition may call, all of which take time by the bytes of what they are given.
const FUNCTIONS: [&str; 9] = ["size", "contains", "startsWith", "endsWith", "string", "int", "uint", "double", "bool"];
/// What would walk over a list or a map, and could take as long as one walk in another.
const WALKS: [&str; 5] = ["all", "exists", "exists_one", "map", "filter"];
/// The maps, which stand for nothing but their entries.
const MAPS: [&str; 2] = ["labels", "facts"];
const OPERATORS: [&str; 18] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::IN,
];

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::default().with_optional_support(false).with_stdlib()));

/// A condition that was read and found bounded.
#[derive(Clone)]
pub struct Condition(Arc<Read>);

struct Read {
    text: String,
    parts: Vec<Part>,
}

/// One of the parts that must all hold.
pub(super) struct Part {
    expression: IdedExpr,
    /// What it asks for; `None` where that is only known once it is asked.
    asks: Option<BTreeSet<Attribute>>,
}

impl Condition {
    /// Says whether it holds of a device. That a part is undecided says nothing where another one does not hold.
    #[must_use]
    pub fn answer(&self, device: &dyn Described) -> Answer {
        let mut undecided = None;
        for part in &self.0.parts {
            match part.answer(device) {
                Answer::Holds => {}
                Answer::Fails => return Answer::Fails,
                Answer::Undecided(why) => drop(undecided.get_or_insert(why)),
            }
        }
        undecided.map_or(Answer::Holds, Answer::Undecided)
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.0.parts
    }
}

impl Part {
    pub(super) fn answer(&self, device: &dyn Described) -> Answer {
        let resolver = Asked(device);
        let mut context = Context::with_env(Arc::clone(&ENV));
        context.set_variable_resolver(&resolver);
        match Value::resolve_val(&self.expression, &context) {
            Ok(value) => match value.downcast_ref::<CelBool>() {
                Some(holds) if *holds.inner() => Answer::Holds,
                Some(_) => Answer::Fails,
                None => Answer::Undecided(Undecided::Unfit {
                    cause: format!("it gives a value of type {}, and not true or false", value.get_type().name()),
                }),
            },
            Err(ExecutionError::NoSuchKey(key) | ExecutionError::UndeclaredReference(key)) => {
                Answer::Undecided(Undecided::Lacks { what: key.as_str().to_owned() })
            }
            Err(error) => Answer::Undecided(Undecided::Unfit { cause: error.to_string() }),
        }
    }

    /// The one attribute that it asks for, if it is one.
    pub(super) fn only_asks(&self) -> Option<&Attribute> {
        let asks = self.asks.as_ref()?;
        asks.first().filter(|_| asks.len() == 1)
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for Condition {}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl FromStr for Condition {
    type Err = ParseConditionError;

    fn from_str(text: &str) -> Result<Self, ParseConditionError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(ParseConditionError::Empty);
        }
        if text.len() > limit::CONDITION_BYTES_MAX {
            let (length, length_max) = (text.len(), limit::CONDITION_BYTES_MAX);
            return Err(ParseConditionError::TooLong { length, length_max });
        }
        let syntax = |at: usize, cause: String| ParseConditionError::Syntax {
            text: text.to_owned(),
            column: text.get(..at).unwrap_or(text).chars().count() + 1,
            cause,
        };
        if let Some(at) = text.find(char::is_control) {
            return Err(syntax(at, "a condition is one line".to_owned()));
        }
        let depth_max = u16::try_from(limit::CONDITION_DEPTH_MAX).unwrap_or(u16::MAX);
        let parsed = PrattParser::new().max_recursion_depth(depth_max).parse(text).map_err(|errors| {
            let Some(error) = errors.errors.first() else { return syntax(text.len(), "it cannot be read".to_owned()) };
            if error.pos == (0, 0) {
                return ParseConditionError::TooDeep { depth_max: limit::CONDITION_DEPTH_MAX };
            }
            let at = usize::try_from(error.pos.1.saturating_sub(1)).unwrap_or_default();
            syntax(at, in_words(&error.msg))
        })?;
        let mut check = Check { asks: Some(BTreeSet::new()), depth: 0 };
        let weight = check.expression(&parsed).map_err(|refused| match refused {
            Refused::Word { word, cause } => syntax(place_of(text, &word), cause),
            Refused::Walk => {
                let at = WALKS.iter().map(|word| place_of(text, word)).min().unwrap_or_default();
                let cause = format!("a condition may not walk over a list or a map: it has no {}", WALKS.join(", "));
                syntax(at, cause)
            }
            Refused::TooDeep => ParseConditionError::TooDeep { depth_max: limit::CONDITION_DEPTH_MAX },
        })?;
        if weight.steps > limit::CONDITION_STEPS_MAX {
            let (steps, steps_max) = (weight.steps, limit::CONDITION_STEPS_MAX);
            return Err(ParseConditionError::TakesTooLong { steps, steps_max });
        }
        let mut parts = Vec::new();
        split(parsed, &mut parts);
        Ok(Self(Arc::new(Read { text: text.to_owned(), parts })))
    }
}

/// What the parser says, in the words that the errors of selectors have.
fn in_words(message: &str) -> String {
    let message =
        message.trim_start_matches("Syntax error: ").replace("'<EOF>'", "the end").replace("<EOF>", "the end");
    match message.strip_prefix("mismatched input ").and_then(|rest| rest.split_once(" expecting ")) {
        Some((found, expected)) => format!("expected {expected}, found {found}"),
        None => message,
    }
}

/// Takes an expression apart into what must all hold.
fn split(mut expression: IdedExpr, parts: &mut Vec<Part>) {
    if let Expr::Call(CallExpr { func_name, target: None, args }) = &mut expression.expr
        && func_name == operators::LOGICAL_AND
    {
        std::mem::take(args).into_iter().for_each(|part| split(part, parts));
        return;
    }
    let mut check = Check { asks: Some(BTreeSet::new()), depth: 0 };
    // It was checked as a whole.
    let asks = check.expression(&expression).ok().and(check.asks);
    parts.push(Part { expression, asks });
}

/// Where a word stands that is no part of a text in quotes.
fn place_of(text: &str, word: &str) -> usize {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut quote = None;
    for (at, character) in text.char_indices() {
        match quote {
            Some(open) if open == character => quote = None,
            Some(_) => {}
            None if character == '"' || character == '\'' => quote = Some(character),
            None => {
                let (before, rest) = text.split_at(at);
                let is_whole = |rest: &str| !before.ends_with(is_part) && !rest.starts_with(is_part);
                if rest.strip_prefix(word).is_some_and(is_whole) {
                    return at;
                }
            }
        }
    }
    text.len()
}

/// Why an expression of CEL is no condition.
enum Refused {
    Word { word: String, cause: String },
    Walk,
    TooDeep,
}

/// What an expression costs.
#[derive(Default)]
struct Weight {
    /// Steps for one device.
    steps: usize,
    /// The values that its own value may be made of.
    width: usize,
}

/// Walks over an expression once, before it is ever evaluated.
struct Check {
    asks: Option<BTreeSet<Attribute>>,
    depth: usize,
}

impl Check {
    fn expression(&mut self, expression: &IdedExpr) -> Result<Weight, Refused> {
        self.depth += 1;
        if self.depth > limit::CONDITION_DEPTH_MAX {
            return Err(Refused::TooDeep);
        }
        let weight = match &expression.expr {
            Expr::Literal(_) => Ok(Weight { steps: 1, width: 1 }),
            Expr::Ident(name) => self.word(name),
            Expr::Select(select) => self.select(select),
            Expr::List(list) => self.all(&list.elements),
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(_) => Err(Refused::Walk),
            Expr::Map(_) => Err(refused("{", "a condition makes no maps")),
            Expr::Struct(made) => Err(refused(&made.type_name, "a condition makes no messages")),
            Expr::Unspecified => Err(refused("", "it cannot be read")),
        };
        self.depth -= 1;
        weight
    }

    fn all<'e>(&mut self, expressions: impl IntoIterator<Item = &'e IdedExpr>) -> Result<Weight, Refused> {
        let mut all = Weight { steps: 1, width: 0 };
        for expression in expressions {
            let weight = self.expression(expression)?;
            all = Weight { steps: all.steps + weight.steps, width: all.width + weight.width };
        }
        Ok(all)
    }

    fn word(&mut self, word: &str) -> Result<Weight, Refused> {
        if MAPS.contains(&word) {
            return Err(refused(word, &format!("{word} stands for nothing alone: ask for an entry, as {word}.NAME")));
        }
        let attribute = Attribute::of_word(word).ok_or_else(|| {
            let known = "labels.NAME, facts.NAME, name, id, site, platform, os, arch and online";
            refused(word, &format!("nothing is called {word:?}; there are {known}"))
        })?;
        Ok(self.ask(Some(attribute)))
    }

    fn select(&mut self, select: &SelectExpr) -> Result<Weight, Refused> {
        match map_of(&select.operand) {
            Some(map) => Ok(self.ask(entry(map, &select.field))),
            None => {
                let cause =
                    format!("nothing has a part {:?}; a key with dots is written as labels[\"a.b\"]", select.field);
                Err(refused(&select.field, &cause))
            }
        }
    }

    fn call(&mut self, call: &CallExpr) -> Result<Weight, Refused> {
        let name = call.func_name.as_str();
        match (name, call.args.as_slice()) {
            (operators::INDEX, [operand, key]) if map_of(operand).is_some() => return self.entry(operand, key),
            (operators::IN, [key, operand]) if map_of(operand).is_some() => return self.entry(operand, key),
            _ => {}
        }
        if !OPERATORS.contains(&name) && !FUNCTIONS.contains(&name) {
            return Err(refused(name, &format!("a condition has no {name:?}; it has {}", FUNCTIONS.join(", "))));
        }
        let weight = self.all(call.target.as_deref().into_iter().chain(&call.args))?;
        // Each sum copies what was added before.
        let copied = if name == operators::ADD { weight.width } else { 0 };
        Ok(Weight { steps: weight.steps + copied, ..weight })
    }

    fn entry(&mut self, operand: &IdedExpr, key: &IdedExpr) -> Result<Weight, Refused> {
        if let (Some(map), Expr::Literal(LiteralValue::String(key))) = (map_of(operand), &key.expr) {
            return Ok(self.ask(entry(map, key.inner())));
        }
        let weight = self.expression(key)?;
        self.asks = None;
        Ok(Weight { steps: weight.steps + 1, ..weight })
    }

    /// Notes what is asked for.
    fn ask(&mut self, attribute: Option<Attribute>) -> Weight {
        if let (Some(asks), Some(attribute)) = (&mut self.asks, attribute) {
            asks.insert(attribute);
        }
        Weight { steps: 1, width: 1 }
    }
}

fn refused(word: &str, cause: &str) -> Refused {
    Refused::Word { word: word.to_owned(), cause: cause.to_owned() }
}

/// The map that an expression stands for.
fn map_of(expression: &IdedExpr) -> Option<&str> {
    match &expression.expr {
        Expr::Ident(name) => MAPS.into_iter().find(|map| map == name),
        _ => None,
    }
}

fn entry(map: &str, key: &str) -> Option<Attribute> {
    Some(if map == "labels" { Attribute::Label(key.to_owned()) } else { Attribute::Fact(fact_key(key).to_owned()) })
}

/// The key that devices have for a fact: what everybody calls RAM, agents call memory.
fn fact_key(key: &str) -> &str {
    if key == "ram_bytes" { "memory_bytes" } else { key }
}

/// Gives a condition what it asks of a device.
struct Asked<'a>(&'a dyn Described);

impl VariableResolver for Asked<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let text = |text: &'b str| CowVal::owned(CelString::from(text));
        // An entry is asked for by its whole name first, and that spares making the map.
        if let Some(key) = variable.strip_prefix("facts.") {
            return self.0.fact(fact_key(key)).map(fact);
        }
        if let Some(key) = variable.strip_prefix("labels.") {
            return self.0.label(key).map(text);
        }
        match variable {
            "labels" => Some(CowVal::owned(Entries { of: self.0, is_labels: true })),
            "facts" => Some(CowVal::owned(Entries { of: self.0, is_labels: false })),
            "name" => Some(text(self.0.name())),
            "id" => Some(CowVal::owned(CelString::from(self.0.device().to_string()))),
            "site" => Some(text(self.0.site())),
            "platform" => self.0.platform().map(text),
            "os" => self.0.os().map(text),
            "arch" => self.0.arch().map(text),
            "online" => Some(CowVal::owned(CelBool::from(self.0.is_online()))),
            _ => None,
        }
    }
}

/// A fact as a value: an int or a bool where its text is exactly what such a one is written as.
fn fact<'b>(text: &'b str) -> CowVal<'b, 'b> {
    match text {
        "true" => return CowVal::owned(CelBool::from(true)),
        "false" => return CowVal::owned(CelBool::from(false)),
        _ => {}
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_canonical = !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && (!digits.starts_with('0') || text == "0");
    match text.parse::<i64>() {
        Ok(number) if is_canonical => CowVal::owned(CelInt::from(number)),
        _ => CowVal::owned(CelString::from(text)),
    }
}

/// The labels or the facts of a device, as a map that makes a value only of the entry that is asked for.
#[derive(Clone, Copy)]
struct Entries<'a> {
    of: &'a dyn Described,
    is_labels: bool,
}

impl<'a> Entries<'a> {
    fn find(&self, key: &str) -> Option<CowVal<'a, 'a>> {
        if self.is_labels {
            self.of.label(key).map(|value| CowVal::owned(CelString::from(value)))
        } else {
            self.of.fact(fact_key(key)).map(fact)
        }
    }

    fn key_of(key: &dyn Val) -> Result<&str, ExecutionError> {
        let key = key.downcast_ref::<CelString<'_>>();
        key.map(CelString::inner).ok_or_else(|| ExecutionError::UnexpectedType {
            got: "another".to_owned(),
            want: "a text as a key".to_owned(),
        })
    }
}

impl fmt::Debug for Entries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_labels { "labels" } else { "facts" })
    }
}

impl Val for Entries<'_> {
    fn get_type(&self) -> &Type {
        &DYN_TYPE
    }

    fn cel_type() -> &'static Type {
        &DYN_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(*self)
    }
}

impl Container for Entries<'_> {
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(self.find(Self::key_of(key)?).is_some())
    }
}

impl Indexer for Entries<'_> {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let key = Self::key_of(key)?;
        let lacking = || ExecutionError::NoSuchKey(Arc::new(format!("{self:?}.{key}")));
        self.find(key).map(|found| CowVal::Owned(found.into_owned())).ok_or_else(lacking)
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let key = Self::key_of(key)?;
        let lacking = || ExecutionError::NoSuchKey(Arc::new(format!("{self:?}.{key}")));
        self.find(key).map(CowVal::into_owned).ok_or_else(lacking)
    }
}

#[cfg(test)]
mod tests;

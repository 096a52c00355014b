//! How a plan is made: existing columns are found again by number and kind, new ones added,
//! messages unfolded level by level while there is room.

use crate::kind::{self, Known, Scalar};
use crate::plan::{Cells, ElementPlan, EnumNames, MessagePlan, Source};
use crate::shape::{Conflict, Difference, KIND, NUMBER};
use arrow_schema::{DataType, Field, FieldRef, Fields};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, OneofDescriptor};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// How deep columns lie at most; the outermost are 1 deep.
const DEPTH_MAX: usize = 16;
/// How many leaf columns a table has at most, if its messages can be kept encoded instead.
const LEAVES_MAX: usize = 2_000;

/// The plan of a message over the columns that are there.
pub(crate) fn plan(existing: &Fields, message: &MessageDescriptor) -> (MessagePlan, Vec<Conflict>) {
    let mut merger = Merger {
        leaves: existing.iter().map(|f| leaves(f.data_type())).sum(),
        drafts: Vec::new(),
        waiting: VecDeque::new(),
        conflicts: Vec::new(),
    };
    merger.open(message.clone(), None, existing.clone(), String::new());
    while let Some(place) = merger.waiting.pop_front() {
        merger.unfold(place);
    }
    (merger.finish(0), merger.conflicts)
}

/// A message being planned.
struct Draft {
    message: MessageDescriptor,
    /// The message it lies in.
    parent: Option<usize>,
    depth: usize,
    /// Names from the outermost column, each with a point after it.
    path: String,
    columns: Vec<Column>,
    oneofs: Vec<OneofDescriptor>,
}

struct Column {
    name: String,
    /// The column as it is in the table.
    existing: Option<FieldRef>,
    content: Content,
}

enum Content {
    Gone,
    Present,
    Oneof(usize),
    Field(FieldDescriptor, Element),
}

/// What the elements of a field are planned as.
enum Element {
    Plain(ElementPlan),
    /// Not decided yet; what an existing column has.
    Undecided(Found),
    Unfolded(usize),
    Encoded,
}

/// What an existing column says of a message.
#[derive(Clone)]
enum Found {
    Nothing,
    Unfolded(Fields),
    Encoded,
}

struct Merger {
    drafts: Vec<Draft>,
    /// Messages to be decided: draft and column.
    waiting: VecDeque<(usize, usize)>,
    leaves: usize,
    conflicts: Vec<Conflict>,
}

impl Merger {
    /// Plans the columns of a message, without those of messages in it.
    fn open(
        &mut self,
        message: MessageDescriptor,
        parent: Option<usize>,
        existing: Fields,
        path: String,
    ) -> usize {
        let oneofs = message.oneofs().filter(|oneof| !oneof.is_synthetic());
        let mut draft = Draft {
            oneofs: oneofs.collect(),
            depth: parent.map_or(1, |p| self.drafts[p].depth + 1),
            message,
            parent,
            path,
            columns: existing.iter().map(Column::existing).collect(),
        };
        let mut names = Names::of(&existing);
        let fields: Vec<_> = mapped(&draft.message).collect();
        for field in fields {
            self.place(field, &mut draft, &mut names);
        }
        for index in 0..draft.oneofs.len() {
            self.place_oneof(index, &mut draft, &mut names);
        }
        if draft.columns.is_empty() {
            self.leaves += 1;
            draft
                .columns
                .push(Column::new("_present".into(), Content::Present));
        }
        let index = self.drafts.len();
        for (place, column) in draft.columns.iter().enumerate() {
            if let Content::Field(_, Element::Undecided(_)) = column.content {
                self.waiting.push_back((index, place));
            }
        }
        self.drafts.push(draft);
        index
    }

    /// Finds the column of a field, or adds one.
    fn place(&mut self, field: FieldDescriptor, draft: &mut Draft, names: &mut Names) {
        let text = kind::text(&field);
        let class = kind::class(&text);
        let number = field.number().to_string();
        let mut other = None;
        for column in &mut draft.columns {
            let Some(existing) = column.existing.clone() else {
                continue;
            };
            let metadata = existing.metadata();
            let Some(kind) = metadata
                .get(KIND)
                .filter(|_| metadata.get(NUMBER) == Some(&number))
            else {
                continue;
            };
            let found = (kind::class(kind) == class)
                .then(|| element_in(&field, existing.data_type()))
                .flatten();
            let Some(element) = found else {
                other.get_or_insert((existing.name().clone(), kind.clone()));
                continue;
            };
            self.note_rename(&field, existing.name(), &draft.path);
            column.content = Content::Field(field, element);
            return;
        }
        let name = match &other {
            None => names.unique(field.name(), &number),
            Some(_) => {
                let name = format!("{}_{}", field.name(), kind::slug(&text));
                names.unique(&name, &number)
            }
        };
        if let Some((column, kind)) = other {
            self.conflicts.push(Conflict {
                path: format!("{}{column}", draft.path),
                difference: Difference::Kind,
                existing: kind,
                new: text,
                column: name.clone(),
            });
        }
        let element = new_element(&field);
        self.leaves += width(&field);
        draft
            .columns
            .push(Column::new(name, Content::Field(field, element)));
    }

    fn note_rename(&mut self, field: &FieldDescriptor, column: &str, path: &str) {
        let suffixes = [field.number().to_string(), kind::slug(&kind::text(field))];
        let is_suffix = |rest: &str| {
            let mut known = suffixes.iter();
            rest.is_empty() || known.any(|suffix| rest[1..].starts_with(suffix.as_str()))
        };
        let rest = column.strip_prefix(field.name());
        let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with('_'));
        if !rest.is_some_and(is_suffix) {
            self.conflicts.push(Conflict {
                path: format!("{path}{column}"),
                difference: Difference::Name,
                existing: column.to_owned(),
                new: field.name().to_owned(),
                column: column.to_owned(),
            });
        }
    }

    fn place_oneof(&mut self, index: usize, draft: &mut Draft, names: &mut Names) {
        let name = draft.oneofs[index].name();
        let kind = format!("oneof {name}");
        let mut columns = draft.columns.iter_mut();
        let found = columns.find(|column| column.is_made(&kind, &DataType::Utf8));
        if let Some(column) = found {
            column.content = Content::Oneof(index);
            return;
        }
        self.leaves += 1;
        let name = names.unique(name, "oneof");
        draft.columns.push(Column::new(name, Content::Oneof(index)));
    }

    /// Decides of a message whether it has columns of its own.
    fn unfold(&mut self, (index, place): (usize, usize)) {
        let draft = &self.drafts[index];
        let column = &draft.columns[place];
        let Content::Field(field, Element::Undecided(found)) = &column.content else {
            return;
        };
        let Some(message) = message_of(field) else {
            return;
        };
        let path = format!("{}{}.", draft.path, column.name);
        let (unfolds, fields) = match found {
            Found::Unfolded(fields) => (true, fields.clone()),
            Found::Encoded => (false, Fields::empty()),
            Found::Nothing => (self.may_unfold(index, &message), Fields::empty()),
        };
        if unfolds && matches!(found, Found::Nothing) {
            self.leaves -= 1;
        }
        let element = match unfolds {
            true => Element::Unfolded(self.open(message, Some(index), fields, path)),
            false => Element::Encoded,
        };
        if let Content::Field(_, decided) = &mut self.drafts[index].columns[place].content {
            *decided = element;
        }
    }

    fn may_unfold(&self, parent: usize, message: &MessageDescriptor) -> bool {
        let mut above = Some(parent);
        while let Some(index) = above {
            if self.drafts[index].message == *message {
                return false;
            }
            above = self.drafts[index].parent;
        }
        self.drafts[parent].depth < DEPTH_MAX && self.leaves - 1 + columns(message) <= LEAVES_MAX
    }

    fn finish(&self, index: usize) -> MessagePlan {
        let draft = &self.drafts[index];
        let (fields, columns): (Vec<_>, Vec<_>) =
            draft.columns.iter().map(|c| self.column(draft, c)).unzip();
        let groups = draft.message.fields().filter(FieldDescriptor::is_group);
        let unmapped = groups.filter_map(|f| Some((f.number(), oneof_of(&f, draft)?)));
        MessagePlan {
            fields: fields.into(),
            columns,
            unmapped: unmapped.collect(),
            oneofs: draft.oneofs.len(),
        }
    }

    fn column(&self, draft: &Draft, column: &Column) -> (FieldRef, Source) {
        let (data_type, number, kind, source) = match &column.content {
            Content::Gone => {
                let existing = column.existing.as_deref().cloned();
                let field = existing.unwrap_or_else(|| Field::new("", DataType::Null, true));
                return (Arc::new(field.with_nullable(true)), Source::Gone);
            }
            Content::Present => (DataType::Boolean, None, "present".into(), Source::Present),
            Content::Oneof(index) => {
                let kind = format!("oneof {}", draft.oneofs[*index].name());
                (DataType::Utf8, None, kind, Source::Oneof(*index))
            }
            Content::Field(field, element) => {
                let text = kind::text(field);
                let kind = match element {
                    Element::Encoded => kind::encoded(&text),
                    _ => text,
                };
                let cells = self.cells(field, element);
                let data_type = cells.data_type();
                let number = field.number();
                let oneof = oneof_of(field, draft);
                let source = Source::Field {
                    number,
                    oneof,
                    cells,
                };
                (data_type, Some(number), kind, source)
            }
        };
        let metadata = match &column.existing {
            Some(existing) => existing.metadata().clone(),
            None => {
                let number = number.map(|number| (NUMBER.to_owned(), number.to_string()));
                let kind = (KIND.to_owned(), kind);
                HashMap::from_iter(number.into_iter().chain([kind]))
            }
        };
        let field = Field::new(&column.name, data_type, true).with_metadata(metadata);
        (Arc::new(field), source)
    }

    fn cells(&self, field: &FieldDescriptor, element: &Element) -> Cells {
        let element = match element {
            Element::Plain(plan) => plan.clone(),
            Element::Unfolded(index) => ElementPlan::Message(Arc::new(self.finish(*index))),
            Element::Encoded | Element::Undecided(_) => ElementPlan::Encoded,
        };
        let default = match &element {
            ElementPlan::Enum(names) => names.default as u64,
            _ => 0,
        };
        match (field.kind(), key_of(field)) {
            (_, Some(key)) => Cells::Map(key, element, default),
            _ if field.is_list() => Cells::Many(element),
            _ if field.supports_presence() => Cells::One(element, None),
            _ => Cells::One(element, Some(default)),
        }
    }
}

impl Column {
    fn new(name: String, content: Content) -> Self {
        Self {
            name,
            existing: None,
            content,
        }
    }

    fn existing(field: &FieldRef) -> Self {
        let mut column = Self {
            name: field.name().clone(),
            existing: Some(field.clone()),
            content: Content::Gone,
        };
        if column.is_made("present", &DataType::Boolean) {
            column.content = Content::Present;
        }
        column
    }

    /// Whether it exists as a column of a kind that no field has.
    fn is_made(&self, kind: &str, data_type: &DataType) -> bool {
        self.existing.as_ref().is_some_and(|field| {
            let metadata = field.metadata();
            metadata.get(KIND).map(String::as_str) == Some(kind)
                && !metadata.contains_key(NUMBER)
                && field.data_type() == data_type
        })
    }
}

/// Names taken in a message, without case.
struct Names(HashSet<String>);

impl Names {
    fn of(existing: &Fields) -> Self {
        let names = existing.iter().map(|field| field.name().to_lowercase());
        Self(names.collect())
    }

    /// The name, with suffixes until it is nobody else's.
    fn unique(&mut self, name: &str, suffix: &str) -> String {
        let mut name = name.to_owned();
        while !self.0.insert(name.to_lowercase()) {
            name = format!("{name}_{suffix}");
        }
        name
    }
}

/// The fields that have columns, by number.
fn mapped(message: &MessageDescriptor) -> impl Iterator<Item = FieldDescriptor> + '_ {
    message.fields().filter(|field| !field.is_group())
}

fn oneof_of(field: &FieldDescriptor, draft: &Draft) -> Option<usize> {
    let oneof = field.containing_oneof()?;
    draft.oneofs.iter().position(|known| *known == oneof)
}

/// The kind of a field's values, elements, or map's values.
fn element_kind(field: &FieldDescriptor) -> Kind {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
        kind => kind,
    }
}

fn message_of(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    element_kind(field).as_message().cloned()
}

fn key_of(field: &FieldDescriptor) -> Option<Scalar> {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => Scalar::of(&entry.map_entry_key_field().kind()),
        _ => None,
    }
}

fn new_element(field: &FieldDescriptor) -> Element {
    let kind = element_kind(field);
    if let Some(scalar) = Scalar::of(&kind) {
        return Element::Plain(ElementPlan::Scalar(scalar));
    }
    if let Some(values) = kind.as_enum() {
        return Element::Plain(ElementPlan::Enum(Arc::new(EnumNames::of(values))));
    }
    match kind.as_message().and_then(Known::of) {
        Some(known) => Element::Plain(ElementPlan::Known(known)),
        None => Element::Undecided(Found::Nothing),
    }
}

/// What the elements of a field are in a column of a type, if the type is one it can have.
fn element_in(field: &FieldDescriptor, column: &DataType) -> Option<Element> {
    let column = match (column, key_of(field)) {
        (DataType::Map(entry, _), Some(key)) => match entry.data_type() {
            DataType::Struct(entry) if entry.len() == 2 => {
                (*entry[0].data_type() == key.data_type()).then(|| entry[1].data_type())?
            }
            _ => return None,
        },
        (_, Some(_)) => return None,
        (DataType::List(element), None) if field.is_list() => element.data_type(),
        (_, None) if field.is_list() => return None,
        (column, None) => column,
    };
    let element = match (new_element(field), column) {
        (Element::Undecided(_), DataType::Struct(fields)) => {
            Element::Undecided(Found::Unfolded(fields.clone()))
        }
        (Element::Undecided(_), DataType::Binary) => Element::Undecided(Found::Encoded),
        (Element::Plain(plan), column) if same_leaves(&plan.data_type(), column) => {
            Element::Plain(plan)
        }
        _ => return None,
    };
    Some(element)
}

/// Whether types are equal but for metadata and nullability.
fn same_leaves(one: &DataType, other: &DataType) -> bool {
    match (one, other) {
        (DataType::Struct(one), DataType::Struct(other)) => {
            let same = |(one, other): (&FieldRef, &FieldRef)| {
                one.name() == other.name() && one.data_type() == other.data_type()
            };
            one.len() == other.len() && one.iter().zip(other).all(same)
        }
        _ => one == other,
    }
}

/// Leaf columns of a type.
fn leaves(data_type: &DataType) -> usize {
    match data_type {
        DataType::Struct(fields) => fields.iter().map(|f| leaves(f.data_type())).sum(),
        DataType::List(element) | DataType::Map(element, _) => leaves(element.data_type()),
        _ => 1,
    }
}

/// Leaf columns of a field whose messages are encoded.
fn width(field: &FieldDescriptor) -> usize {
    let value = 1 + usize::from(element_kind(field).as_enum().is_some());
    value + usize::from(field.is_map())
}

/// Leaf columns of a message, the messages in it encoded.
fn columns(message: &MessageDescriptor) -> usize {
    let oneofs = message.oneofs().filter(|oneof| !oneof.is_synthetic());
    let fields: usize = mapped(message).map(|field| width(&field)).sum();
    (fields + oneofs.count()).max(1)
}

//! Column types, and tables whose columns are declared once for writing and reading.

use std::sync::Arc;

use polars::prelude::{AnyValue, Column, DataFrame, NamedFrom, Series};

use super::{TableError, flags, floats, integers, maybe, strings, take};
use crate::class::{Class, Group};
use crate::store::hex;

/// A type of the values of a column: how they are written, and how they are read.
///
/// ```
/// use mem2gen::frame::{Item, frame};
///
/// let errors = vec![Some(0.5), None];
/// let table = frame("errors", vec![Item::column("k", vec![2usize, 9]), Item::column("error", errors.clone())])?;
/// assert_eq!(<Option<f64>>::read(&table, "error")?, errors);
/// assert_eq!(usize::read(&table, "k")?, [2, 9]);
/// assert!(f64::read(&table, "error").is_err());
/// # Ok::<(), mem2gen::frame::TableError>(())
/// ```
pub trait Item: Sized {
    /// The column `name` with these values.
    fn column(name: &str, values: Vec<Self>) -> Column;

    /// The values of the column `name`.
    ///
    /// # Errors
    /// - [`TableError::NoColumn`]: the column is missing.
    /// - [`TableError::WrongType`]: a value has another type or is out of range.
    /// - [`TableError::Nulls`]: a value is missing and the type is not an `Option`.
    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError>;
}

fn whole(v: &AnyValue<'_>) -> Option<u64> {
    match *v {
        AnyValue::Int64(v) => u64::try_from(v).ok(),
        AnyValue::Int32(v) => u64::try_from(v).ok(),
        AnyValue::UInt64(v) => Some(v),
        AnyValue::UInt32(v) => Some(u64::from(v)),
        _ => None,
    }
}

fn size(v: &AnyValue<'_>) -> Option<usize> {
    whole(v).and_then(|v| usize::try_from(v).ok())
}

fn real(v: &AnyValue<'_>) -> Option<f64> {
    match *v {
        AnyValue::Float64(v) => Some(v),
        AnyValue::Float32(v) => Some(f64::from(v)),
        _ => None,
    }
}

fn flag(v: &AnyValue<'_>) -> Option<bool> {
    if let AnyValue::Boolean(v) = v { Some(*v) } else { None }
}

fn text(v: &AnyValue<'_>) -> Option<String> {
    v.get_str().map(str::to_owned)
}

fn nullable<T>(name: &str, values: Vec<Option<T>>) -> Column
where
    Series: NamedFrom<Vec<Option<T>>, [Option<T>]>,
{
    Series::new(name.into(), values).into()
}

const WHOLE: &str = "integers from 0";
const REAL: &str = "real numbers";
const TEXT: &str = "text";

impl Item for f64 {
    fn column(name: &str, values: Vec<Self>) -> Column {
        floats(name, values)
    }

    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError> {
        take(frame, name, REAL, real)
    }
}

impl Item for Option<f64> {
    fn column(name: &str, values: Vec<Self>) -> Column {
        nullable(name, values)
    }

    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError> {
        maybe(frame, name, REAL, real)
    }
}

impl Item for Option<f32> {
    fn column(name: &str, values: Vec<Self>) -> Column {
        nullable(name, values)
    }

    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError> {
        maybe(frame, name, REAL, |v| if let AnyValue::Float32(v) = v { Some(*v) } else { None })
    }
}

impl Item for usize {
    fn column(name: &str, values: Vec<Self>) -> Column {
        integers(name, values.into_iter().map(|v| v as i64).collect())
    }

    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError> {
        take(frame, name, WHOLE, size)
    }
}

impl Item for Option<usize> {
    fn column(name: &str, values: Vec<Self>) -> Column {
        nullable(name, values.into_iter().map(|v| v.map(|v| v as i64)).collect())
    }

    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError> {
        maybe(frame, name, WHOLE, size)
    }
}

impl Item for u64 {
    fn column(name: &str, values: Vec<Self>) -> Column {
        integers(name, values.into_iter().map(|v| v as i64).collect())
    }

    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError> {
        take(frame, name, WHOLE, whole)
    }
}

impl Item for Option<u64> {
    fn column(name: &str, values: Vec<Self>) -> Column {
        nullable(name, values.into_iter().map(|v| v.map(|v| v as i64)).collect())
    }

    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError> {
        maybe(frame, name, WHOLE, whole)
    }
}

impl Item for bool {
    fn column(name: &str, values: Vec<Self>) -> Column {
        flags(name, values)
    }

    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError> {
        take(frame, name, "booleans", flag)
    }
}

impl Item for String {
    fn column(name: &str, values: Vec<Self>) -> Column {
        strings(name, values)
    }

    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError> {
        take(frame, name, TEXT, text)
    }
}

impl Item for Option<String> {
    fn column(name: &str, values: Vec<Self>) -> Column {
        nullable(name, values)
    }

    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError> {
        maybe(frame, name, TEXT, text)
    }
}

impl Item for Arc<str> {
    fn column(name: &str, values: Vec<Self>) -> Column {
        Series::new(name.into(), values.iter().map(|v| &**v).collect::<Vec<_>>()).into()
    }

    /// Consecutive equal texts share one allocation.
    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError> {
        let mut last = Self::default();
        let all = String::read(frame, name)?.into_iter().map(|v| {
            if *last != *v {
                last = v.into();
            }
            last.clone()
        });
        Ok(all.collect())
    }
}

/// Bytes as text in hexadecimal.
impl Item for Vec<u8> {
    fn column(name: &str, values: Vec<Self>) -> Column {
        strings(name, values.iter().map(|v| hex(v)).collect())
    }

    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError> {
        let bytes = |text: &str| {
            let pair = |i: usize| u8::from_str_radix(text.get(i..i + 2)?, 16).ok();
            (0..text.len()).step_by(2).map(pair).collect::<Option<Self>>()
        };
        take(frame, name, "bytes in hexadecimal", |v| bytes(v.get_str()?))
    }
}

/// Counts as text, separated by spaces.
impl Item for Vec<usize> {
    fn column(name: &str, values: Vec<Self>) -> Column {
        let line = |v: &Self| v.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
        strings(name, values.iter().map(line).collect())
    }

    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError> {
        let counts = |text: &str| text.split_whitespace().map(|v| v.parse().ok()).collect::<Option<Self>>();
        take(frame, name, "counts separated by spaces", |v| counts(v.get_str()?))
    }
}

/// An optional number in a column without missing values: `None` is NaN there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct NanIfNone(Option<f64>);

impl From<Option<f64>> for NanIfNone {
    fn from(v: Option<f64>) -> Self {
        Self(v)
    }
}

impl From<NanIfNone> for Option<f64> {
    fn from(v: NanIfNone) -> Self {
        v.0
    }
}

impl Item for NanIfNone {
    fn column(name: &str, values: Vec<Self>) -> Column {
        floats(name, values.into_iter().map(|v| v.0.unwrap_or(f64::NAN)).collect())
    }

    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError> {
        Ok(f64::read(frame, name)?.into_iter().map(|v| Self(Some(v).filter(|v| !v.is_nan()))).collect())
    }
}

/// Makes an enum an [`Item`]: a column of its names. The enum has `name()`; the list holds the variants that a table
/// may have.
macro_rules! named_item {
    ($t:ty, $all:expr, $wanted:expr) => {
        impl $crate::frame::Item for $t {
            fn column(name: &str, values: Vec<Self>) -> polars::prelude::Column {
                $crate::frame::texts(name, &values.iter().map(|v| v.name()).collect::<Vec<_>>())
            }

            fn read(
                frame: &polars::prelude::DataFrame,
                name: &str,
            ) -> Result<Vec<Self>, $crate::frame::TableError> {
                $crate::frame::take(frame, name, $wanted, |v| {
                    $all.into_iter().find(|item| Some(item.name()) == v.get_str())
                })
            }
        }
    };
}
pub(crate) use named_item;

named_item!(Class, Class::LABELS, "labels");
named_item!(Group, Group::ALL, "names of classes");

/// Declares a type of a column that has one word for true and one for false, for fields of type `bool`.
macro_rules! word_item {
    ($name:ident, $true:literal, $false:literal) => {
        #[doc = concat!("A flag as text: `", $true, "` or `", $false, "`.")]
        #[derive(Clone, Copy)]
        struct $name(bool);

        impl $name {
            fn name(self) -> &'static str {
                if self.0 { $true } else { $false }
            }
        }

        impl From<bool> for $name {
            fn from(v: bool) -> Self {
                Self(v)
            }
        }

        impl From<$name> for bool {
            fn from(v: $name) -> Self {
                v.0
            }
        }

        $crate::frame::named_item!($name, [$name(true), $name(false)], concat!($true, " or ", $false));
    };
}
pub(crate) use word_item;

/// Declares the columns of a table once for both directions: a function that writes rows to a frame and one that reads
/// them back. Without the second name there is only the first. A row type that is read has a `Default`.
///
/// A column is its name and one of
/// - `(field)`: a field of the row, or a path such as `mean.error` or `interval[0]`, whose type is an [`Item`];
/// - `(field) as Code`: a field that is written and read as another [`Item`], with `From` both ways;
/// - `[get, set]`: two closures, of which the first takes the row and the second the row and a value that was read;
/// - `[get]`: a closure of the row. The column is written and not read.
macro_rules! columns {
    (@get $row:ty, $r:ident, ($($field:tt)+)) => { $r.$($field)+.clone() };
    (@get $row:ty, $r:ident, ($($field:tt)+) $code:ty) => { <$code>::from($r.$($field)+.clone()) };
    (@get $row:ty, $r:ident, [$get:expr $(, $set:expr)?]) => {{ let get: fn(&$row) -> _ = $get; get($r) }};

    (@set $row:ty, $rows:ident, $frame:ident, $name:literal, ($($field:tt)+)) => {
        for (row, v) in $rows.iter_mut().zip($crate::frame::Item::read($frame, $name)?) {
            row.$($field)+ = v;
        }
    };
    (@set $row:ty, $rows:ident, $frame:ident, $name:literal, ($($field:tt)+) $code:ty) => {
        for (row, v) in $rows.iter_mut().zip(<$code as $crate::frame::Item>::read($frame, $name)?) {
            row.$($field)+ = v.into();
        }
    };
    (@set $row:ty, $rows:ident, $frame:ident, $name:literal, [$get:expr, $set:expr]) => {
        for (row, v) in $rows.iter_mut().zip($crate::frame::Item::read($frame, $name)?) {
            let set: fn(&mut $row, _) = $set;
            set(row, v);
        }
    };
    (@set $row:ty, $rows:ident, $frame:ident, $name:literal, [$get:expr]) => {};

    ($row:ty, $caption:literal, $(#[$doc:meta])* $write:ident,
     { $($name:literal: $column:tt $(as $code:ty)?),* $(,)? }) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// As [`frame`](crate::frame::frame).
        pub fn $write(rows: &[$row]) -> Result<polars::prelude::DataFrame, $crate::frame::TableError> {
            $crate::frame::frame($caption, vec![
                $($crate::frame::Item::column(
                    $name,
                    rows.iter().map(|r| $crate::frame::columns!(@get $row, r, $column $($code)?)).collect(),
                )),*
            ])
        }
    };

    ($row:ty, $caption:literal, $(#[$doc:meta])* $write:ident, $read:ident,
     { $($name:literal: $column:tt $(as $code:ty)?),* $(,)? }) => {
        $crate::frame::columns!($row, $caption, $(#[$doc])* $write,
            { $($name: $column $(as $code)?),* });

        #[doc = concat!("The rows of [`", stringify!($write), "`].")]
        ///
        /// # Errors
        /// [`TableError`](crate::frame::TableError) for a missing column, another type or a value out of range.
        pub fn $read(frame: &polars::prelude::DataFrame) -> Result<Vec<$row>, $crate::frame::TableError> {
            let mut rows = vec![<$row>::default(); frame.height()];
            $($crate::frame::columns!(@set $row, rows, frame, $name, $column $($code)?);)*
            Ok(rows)
        }
    };
}
pub(crate) use columns;

//! What a column can hold, and tables that are declared once for both directions.

use std::sync::Arc;

use polars::prelude::{AnyValue, Column, DataFrame, NamedFrom, Series};

use super::{TableError, column_text, flags, floats, integers, maybe, strings, take};
use crate::class::{Class, Group};
use crate::store::hex;

/// A value that a column can hold: one declaration of a table's columns serves writing and reading.
pub trait Item: Sized {
    /// The column of this name.
    fn column(name: &str, values: Vec<Self>) -> Column;

    /// The values of the column of this name.
    ///
    /// # Errors
    /// [`TableError`] for a missing column, another type, or a value that does not fit.
    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError>;
}

fn whole(v: &AnyValue<'_>) -> Option<u64> {
    if let AnyValue::Int64(v) = v { u64::try_from(*v).ok() } else { None }
}

fn text(v: &AnyValue<'_>) -> Option<String> {
    v.get_str().map(str::to_owned)
}

const WHOLE: &str = "whole numbers from 0 on";
const REAL: &str = "real numbers";
const TEXT: &str = "text";

impl Item for f64 {
    fn column(name: &str, values: Vec<Self>) -> Column {
        floats(name, values)
    }

    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError> {
        crate::frame::column_f64(frame, name)
    }
}

impl Item for Option<f64> {
    fn column(name: &str, values: Vec<Self>) -> Column {
        Series::new(name.into(), values).into()
    }

    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError> {
        maybe(frame, name, REAL, |v| if let AnyValue::Float64(v) = v { Some(*v) } else { None })
    }
}

impl Item for Option<f32> {
    fn column(name: &str, values: Vec<Self>) -> Column {
        Series::new(name.into(), values).into()
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
        take(frame, name, WHOLE, |v| whole(v).map(|v| v as Self))
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
        Series::new(name.into(), values.into_iter().map(|v| v.map(|v| v as i64)).collect::<Vec<_>>()).into()
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
        take(frame, name, "yes or no", |v| if let AnyValue::Boolean(v) = v { Some(*v) } else { None })
    }
}

impl Item for String {
    fn column(name: &str, values: Vec<Self>) -> Column {
        strings(name, values)
    }

    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError> {
        column_text(frame, name)
    }
}

impl Item for Option<String> {
    fn column(name: &str, values: Vec<Self>) -> Column {
        Series::new(name.into(), values).into()
    }

    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError> {
        maybe(frame, name, TEXT, text)
    }
}

impl Item for Arc<str> {
    fn column(name: &str, values: Vec<Self>) -> Column {
        Series::new(name.into(), values.iter().map(|v| &**v).collect::<Vec<_>>()).into()
    }

    /// Rows of one cell lie together and share their text.
    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError> {
        let mut last = Self::default();
        let all = column_text(frame, name)?.into_iter().map(|v| {
            if *last != *v {
                last = v.into();
            }
            last.clone()
        });
        Ok(all.collect())
    }
}

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

impl Item for Option<usize> {
    fn column(name: &str, values: Vec<Self>) -> Column {
        Series::new(name.into(), values.into_iter().map(|v| v.map(|v| v as i64)).collect::<Vec<_>>()).into()
    }

    fn read(frame: &DataFrame, name: &str) -> Result<Vec<Self>, TableError> {
        maybe(frame, name, WHOLE, |v| whole(v).map(|v| v as usize))
    }
}

/// Makes an enum an [`Item`]: a column of its names. The enum has `name()`; the list holds the variants that a table
/// may have.
macro_rules! named_item {
    ($t:ty, $all:expr, $wanted:literal) => {
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

/// Declares a table once for both directions: a function that makes a frame of rows, and its inverse, from columns by
/// name and field. The row type has a `Default`.
macro_rules! columns {
    ($row:ty, $caption:literal, $(#[$doc:meta])* $write:ident, $read:ident,
     { $($name:literal: ($($field:tt)+)),* $(,)? }) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// As [`frame`](crate::frame::frame).
        pub fn $write(rows: &[$row]) -> Result<polars::prelude::DataFrame, $crate::frame::TableError> {
            $crate::frame::frame($caption, vec![
                $($crate::frame::Item::column($name, rows.iter().map(|r| r.$($field)+.clone()).collect())),*
            ])
        }

        #[doc = concat!("The rows of [`", stringify!($write), "`].")]
        ///
        /// # Errors
        /// [`TableError`](crate::frame::TableError) for a missing column or another type.
        pub fn $read(frame: &polars::prelude::DataFrame) -> Result<Vec<$row>, $crate::frame::TableError> {
            let mut rows = vec![<$row>::default(); frame.height()];
            $(for (row, v) in rows.iter_mut().zip($crate::frame::Item::read(frame, $name)?) {
                row.$($field)+ = v;
            })*
            Ok(rows)
        }
    };
}
pub(crate) use columns;

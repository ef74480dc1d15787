//! Tables: polars frames with a caption, as HTML, as plain text and in parquet files.
//!
//! ```
//! use mem2gen::frame::{Table, floats, integers, texts};
//!
//! let table = Table::new(
//!     "Attractors of two memories",
//!     vec![integers("K", vec![2, 2]), floats("energy", vec![0.125, 0.25]), texts("kind", &["memorized", "spurious"])],
//! )?;
//! assert!(table.to_html().contains("<caption>Attractors of two memories</caption>"));
//! # Ok::<(), mem2gen::frame::TableError>(())
//! ```

mod columns;
pub mod fingerprint;
mod pages;

use std::fmt::Write as _;
use std::io::{self, Cursor, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use columns::Item;
pub(crate) use columns::{NanIfNone, columns, named_item, word_item};
use polars::prelude::{
    AnyValue, ArrowDataType, Column, DataFrame, DataType, KeyValueMetadata, NamedFrom, ParquetReader,
    ParquetWriter, SerReader, Series,
};

use crate::display::{escape, write_content};
use crate::store::{StoreError, cut_reason, quoted, write_atomic};

/// An error of a table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file is not a parquet table, or the frame cannot be written as one.
    #[error("parquet {}: {reason}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The columns do not form a frame.
    #[error("table \"{caption}\": {reason}")]
    Frame {
        /// Caption of the table.
        caption: String,
        /// What is wrong.
        reason: String,
    },
    /// A missing column.
    #[error("column \"{name}\" is missing, the table has {have}")]
    NoColumn {
        /// The missing column.
        name: String,
        /// The columns of the table.
        have: String,
    },
    /// A column with a value of another type or out of range.
    #[error("column \"{name}\" has {found}, expected {wanted}")]
    WrongType {
        /// The column.
        name: String,
        /// The expected values.
        wanted: &'static str,
        /// The value that was found, and its type.
        found: String,
    },
    /// A column with missing values.
    #[error("column \"{name}\" has {count} missing values, expected none")]
    Nulls {
        /// The column.
        name: String,
        /// Number of missing values.
        count: usize,
    },
    /// The record of a stored table cannot be written as JSON.
    #[error("record of {name}: {reason}")]
    Record {
        /// Name of the stored table.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

/// A column of real numbers.
pub fn floats(name: &str, values: Vec<f64>) -> Column {
    Series::new(name.into(), values).into()
}

/// A column of integers.
pub fn integers(name: &str, values: Vec<i64>) -> Column {
    Series::new(name.into(), values).into()
}

/// A column of text.
pub fn texts(name: &str, values: &[&str]) -> Column {
    Series::new(name.into(), values).into()
}

/// A column of owned text.
pub fn strings(name: &str, values: Vec<String>) -> Column {
    Series::new(name.into(), values).into()
}

/// A column of booleans.
pub fn flags(name: &str, values: Vec<bool>) -> Column {
    Series::new(name.into(), values).into()
}

/// A frame with a caption.
///
/// ```
/// use mem2gen::frame::{Table, floats, integers};
///
/// let table = Table::new("recall", vec![integers("K", vec![2, 4]), floats("share", vec![1.0, 1.0 / 3.0])])?;
/// assert_eq!(table.digits(2).to_text(), "recall\nK  share\n2      1\n4   0.33\n");
/// # Ok::<(), mem2gen::frame::TableError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Table {
    caption: String,
    frame: DataFrame,
    rows: usize,
    digits: usize,
}

/// Number of shown rows by default.
const ROWS: usize = 20;
/// Number of significant digits by default.
const DIGITS: usize = 4;

impl Table {
    /// A table of columns of equal length.
    ///
    /// # Errors
    /// [`TableError::Frame`] for columns of different lengths or with the same name.
    pub fn new(caption: &str, columns: Vec<Column>) -> Result<Self, TableError> {
        let frame = frame(caption, columns)?;
        Ok(Self::from_frame(caption, frame))
    }

    /// A table of a frame.
    pub fn from_frame(caption: &str, frame: DataFrame) -> Self {
        Self { caption: caption.to_owned(), frame, rows: ROWS, digits: DIGITS }
    }

    /// Shows at most `rows` rows; 20 by default.
    pub fn rows(mut self, rows: usize) -> Self {
        self.rows = rows;
        self
    }

    /// Shows real numbers with `digits` significant digits; 4 by default.
    pub fn digits(mut self, digits: usize) -> Self {
        self.digits = digits.max(1);
        self
    }

    /// The frame.
    pub fn frame(&self) -> &DataFrame {
        &self.frame
    }

    /// The caption.
    pub fn caption(&self) -> &str {
        &self.caption
    }

    /// The table as HTML: escaped text, numbers aligned right, and a line with the number of hidden rows.
    pub fn to_html(&self) -> String {
        let columns = self.shown();
        let mut s = String::from("<table>\n");
        let _ = writeln!(s, "<caption>{}</caption>", escape(&self.caption));
        s.push_str("<thead><tr>");
        for c in &columns {
            let _ = write!(s, "<th{}>{}</th>", c.alignment(), escape(&c.name));
        }
        s.push_str("</tr></thead>\n<tbody>\n");
        for i in 0..self.rows.min(self.frame.height()) {
            s.push_str("<tr>");
            for c in &columns {
                let text = if c.numeric { c.cells[i].replace('-', "−") } else { c.cells[i].clone() };
                let _ = write!(s, "<td{}>{}</td>", c.alignment(), escape(&text));
            }
            s.push_str("</tr>\n");
        }
        s.push_str("</tbody>\n");
        if let Some(line) = self.hidden() {
            let _ =
                writeln!(s, "<tfoot><tr><td colspan=\"{}\">{line}</td></tr></tfoot>", columns.len().max(1));
        }
        s.push_str("</table>\n");
        s
    }

    /// The table as text in aligned columns.
    pub fn to_text(&self) -> String {
        let columns = self.shown();
        let width = |s: &str| s.chars().count();
        let widths: Vec<usize> = columns
            .iter()
            .map(|c| {
                c.cells.iter().map(|t| width(t)).chain([width(&c.name)]).max().expect("a column has a name")
            })
            .collect();
        let mut s = format!("{}\n", self.caption);
        let mut line = |cells: Vec<&str>| {
            let mut row = String::new();
            for ((text, c), w) in cells.into_iter().zip(&columns).zip(&widths) {
                let space = " ".repeat(w - width(text));
                let gap = if row.is_empty() { "" } else { "  " };
                let _ = if c.numeric {
                    write!(row, "{gap}{space}{text}")
                } else {
                    write!(row, "{gap}{text}{space}")
                };
            }
            s.push_str(row.trim_end());
            s.push('\n');
        };
        line(columns.iter().map(|c| c.name.as_str()).collect());
        for i in 0..self.rows.min(self.frame.height()) {
            line(columns.iter().map(|c| c.cells[i].as_str()).collect());
        }
        if let Some(hidden) = self.hidden() {
            s.push_str(&hidden);
            s.push('\n');
        }
        s
    }

    /// Shows the table in a notebook, as HTML and as text.
    pub fn evcxr_display(&self) {
        let mut out = io::stdout().lock();
        // If stdout is closed, an error can't be reported.
        let _ = self.write_display(&mut out).and_then(|()| out.flush());
    }

    /// Writes what [`Self::evcxr_display`] prints.
    ///
    /// # Errors
    /// Errors of the writer.
    pub fn write_display(&self, out: &mut dyn Write) -> io::Result<()> {
        write_content(out, "text/html", self.to_html().trim_end())?;
        write_content(out, "text/plain", self.to_text().trim_end())
    }

    /// Writes the whole table as parquet.
    ///
    /// # Errors
    /// As [`write_parquet`].
    pub fn save(&self, path: &Path) -> Result<(), TableError> {
        write_parquet(path, &self.frame)
    }

    fn hidden(&self) -> Option<String> {
        let all = self.frame.height();
        (all > self.rows).then(|| format!("… and {} more rows of {all}", all - self.rows))
    }

    fn shown(&self) -> Vec<Shown> {
        let head = self.frame.head(Some(self.rows));
        head.columns()
            .iter()
            .map(|c| Shown {
                name: c.name().to_string(),
                numeric: c.dtype().is_primitive_numeric(),
                cells: c.as_materialized_series().iter().map(|v| cell(&v, self.digits)).collect(),
            })
            .collect()
    }
}

struct Shown {
    name: String,
    numeric: bool,
    cells: Vec<String>,
}

impl Shown {
    fn alignment(&self) -> &'static str {
        if self.numeric { " style=\"text-align:right\"" } else { " style=\"text-align:left\"" }
    }
}

fn cell(value: &AnyValue<'_>, digits: usize) -> String {
    match value {
        AnyValue::Null => "—".to_owned(),
        AnyValue::Float64(v) => real(*v, digits),
        AnyValue::Float32(v) => real(f64::from(*v), digits),
        AnyValue::Boolean(v) => if *v { "yes" } else { "no" }.to_owned(),
        AnyValue::String(s) => (*s).to_owned(),
        AnyValue::StringOwned(s) => s.to_string(),
        other => other.to_string(),
    }
}

/// A real number with `digits` significant digits; the integer part is complete below a million.
pub(crate) fn real(v: f64, digits: usize) -> String {
    if v == 0.0 {
        return "0".to_owned();
    }
    if !v.is_finite() {
        return v.to_string();
    }
    // The exponent after rounding, so that 0.99999 counts as 1.
    let scientific = format!("{v:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').expect("the format writes an exponent");
    let e: i32 = exponent.parse().expect("the exponent of an f64 is an integer");
    let trim = |s: &str| {
        if s.contains('.') { s.trim_end_matches('0').trim_end_matches('.').to_owned() } else { s.to_owned() }
    };
    if (-4..6).contains(&e) {
        trim(&format!("{v:.*}", (digits as i32 - 1 - e).max(0) as usize))
    } else {
        format!("{}e{e}", trim(mantissa))
    }
}

/// A frame of columns of equal length.
///
/// # Errors
/// [`TableError::Frame`] for columns of different lengths or with the same name.
pub fn frame(caption: &str, columns: Vec<Column>) -> Result<DataFrame, TableError> {
    DataFrame::new_infer_height(columns)
        .map_err(|e| TableError::Frame { caption: caption.to_owned(), reason: e.to_string() })
}

/// Writes a frame as parquet, atomically. Equal frames give equal bytes.
///
/// # Errors
/// [`TableError::Store`], and [`TableError::Parquet`] for a column type that parquet does not have.
pub fn write_parquet(path: &Path, frame: &DataFrame) -> Result<(), TableError> {
    write_parquet_with(path, frame, &[])
}

/// As [`write_parquet`], with keys and values in the metadata of the file, which [`parquet_note`] reads.
///
/// # Errors
/// As [`write_parquet`].
pub fn write_parquet_with(path: &Path, frame: &DataFrame, notes: &[(&str, &str)]) -> Result<(), TableError> {
    let bytes = parquet_bytes(path, frame, notes)?;
    Ok(write_atomic(path, |w| w.write_all(&bytes))?)
}

pub(crate) fn parquet_bytes(
    path: &Path,
    frame: &DataFrame,
    notes: &[(&str, &str)],
) -> Result<Vec<u8>, TableError> {
    let mut frame = frame.clone();
    frame.rechunk_mut();
    let notes = (!notes.is_empty()).then(|| {
        let owned = notes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        KeyValueMetadata::from_static(owned.collect())
    });
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes)
        .with_key_value_metadata(notes)
        .finish(&mut frame)
        .map_err(parquet_error(path))?;
    Ok(bytes)
}

/// Reads a parquet file.
///
/// # Errors
/// [`TableError::Store`] for a file that cannot be opened, [`TableError::Parquet`] for a damaged one.
pub fn read_parquet(path: &Path) -> Result<DataFrame, TableError> {
    let bytes = std::fs::read(path).map_err(StoreError::io("open", path))?;
    read_parquet_bytes(path, bytes)
}

/// The value of a key in the metadata of a parquet file; `None` when the key is missing.
///
/// # Errors
/// As [`read_parquet`].
pub fn parquet_note(path: &Path, key: &str) -> Result<Option<String>, TableError> {
    let bytes = std::fs::read(path).map_err(StoreError::io("open", path))?;
    guarded(path, || {
        pages::check_metadata(&bytes)?;
        let mut reader = ParquetReader::new(Cursor::new(bytes));
        let notes = reader.get_metadata().map_err(|e| e.to_string())?.key_value_metadata();
        Ok(notes.iter().flatten().find(|note| note.key == key).and_then(|note| note.value.clone()))
    })
}

pub(crate) fn read_parquet_bytes(path: &Path, bytes: Vec<u8>) -> Result<DataFrame, TableError> {
    guarded(path, || {
        pages::check_metadata(&bytes)?;
        let mut reader = ParquetReader::new(Cursor::new(&bytes));
        let groups = &reader.get_metadata().map_err(|e| e.to_string())?.row_groups;
        for column in groups.iter().flat_map(|group| group.parquet_columns()) {
            let range = column.byte_range();
            let ends = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
            let chunk = ends.and_then(|(start, end)| bytes.get(start..end));
            pages::check_chunk(chunk, column.num_values(), bytes.len())?;
        }
        // Tables of pictures may have the time of each; polars is built without times.
        let schema = reader.schema().map_err(|e| e.to_string())?;
        let known: Vec<usize> = (0..schema.len())
            .filter(|&i| schema.get_at_index(i).is_some_and(|(_, f)| !is_time(f.dtype())))
            .collect();
        reader.with_projection(Some(known)).set_rechunk(true).finish().map_err(|e| e.to_string())
    })
}

fn is_time(kind: &ArrowDataType) -> bool {
    use ArrowDataType::{Date32, Date64, Duration, Interval, Time32, Time64, Timestamp};
    matches!(kind, Timestamp(..) | Date32 | Date64 | Time32(_) | Time64(_) | Duration(_) | Interval(_))
}

/// What polars reads from a parquet file. polars panics at some damaged files, in any of its threads: such a panic becomes
/// an error, and is not printed.
fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, String>) -> Result<T, TableError> {
    static QUIET: Once = Once::new();
    static READERS: AtomicUsize = AtomicUsize::new(0);
    QUIET.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let of_polars = info.location().is_some_and(|place| place.file().contains("polars"));
            if READERS.load(Ordering::SeqCst) == 0 || !of_polars {
                before(info);
            }
        }));
    });
    READERS.fetch_add(1, Ordering::SeqCst);
    // The reader is not used again.
    let found = panic::catch_unwind(AssertUnwindSafe(read));
    READERS.fetch_sub(1, Ordering::SeqCst);
    let damaged = |_| Err("is damaged; copy or write the file again".to_owned());
    found.unwrap_or_else(damaged).map_err(parquet_error(path))
}

/// An encoded picture, which may be missing, and its name.
pub type TablePicture = (Option<Vec<u8>>, Option<String>);

/// The encoded pictures in a column of a parquet table: a structure of `bytes` and `path`, as Hugging Face writes it, or
/// plain bytes. `column` names it where there are several.
///
/// # Errors
/// A reason, for damage, and for no or several such columns.
pub(crate) fn pictures_of_table(
    path: &Path,
    bytes: Vec<u8>,
    column: Option<&str>,
) -> Result<Vec<TablePicture>, String> {
    let frame = read_parquet_bytes(path, bytes).map_err(|e| e.to_string())?;
    let mut found = Vec::new();
    for column in frame.columns() {
        let (bytes, names) = match column.dtype() {
            DataType::Binary => (Some(column.as_materialized_series().clone()), None),
            DataType::Struct(_) => {
                let parts = column.as_materialized_series().struct_().map_err(|e| e.to_string())?;
                (parts.field_by_name("bytes").ok(), parts.field_by_name("path").ok())
            }
            _ => continue,
        };
        if let Some(bytes) = bytes.filter(|bytes| *bytes.dtype() == DataType::Binary) {
            found.push((column.name().to_string(), bytes, names));
        }
    }
    let known = found.iter().map(|(name, ..)| quoted(name)).collect::<Vec<_>>().join(", ");
    let at = match (column.and_then(|wanted| found.iter().position(|(name, ..)| name == wanted)), found.len())
    {
        (Some(at), _) => at,
        (None, 1) => 0,
        (None, 0) => return Err("it has no column of images (bytes, or a structure with bytes)".into()),
        (None, count) => {
            return Err(format!(
                "{count} columns of images ({known}), expected one; choose one with --tensor, or for one of several inputs with \
                 --train-tensor and the like"
            ));
        }
    };
    let (_, bytes, names) = found.swap_remove(at);
    let bytes = bytes.binary().map_err(|e| e.to_string())?;
    let names: Vec<Option<String>> = match names.as_ref().and_then(|names| names.str().ok()) {
        Some(names) => names.iter().map(|name| name.map(str::to_owned)).collect(),
        None => vec![None; bytes.len()],
    };
    Ok(bytes.iter().map(|bytes| bytes.map(<[u8]>::to_vec)).zip(names).collect())
}

fn parquet_error<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> TableError {
    let path = path.to_path_buf();
    move |e| TableError::Parquet { path, reason: cut_reason(&e.to_string()) }
}

pub(crate) fn take<T>(
    frame: &DataFrame,
    name: &str,
    wanted: &'static str,
    convert: impl Fn(&AnyValue<'_>) -> Option<T>,
) -> Result<Vec<T>, TableError> {
    let values: Vec<T> = maybe(frame, name, wanted, convert)?.into_iter().flatten().collect();
    match frame.height() - values.len() {
        0 => Ok(values),
        count => Err(TableError::Nulls { name: name.to_owned(), count }),
    }
}

/// As [`take`], where values may be missing.
pub(crate) fn maybe<T>(
    frame: &DataFrame,
    name: &str,
    wanted: &'static str,
    convert: impl Fn(&AnyValue<'_>) -> Option<T>,
) -> Result<Vec<Option<T>>, TableError> {
    let column = frame.column(name).map_err(|_| TableError::NoColumn {
        name: name.to_owned(),
        have: cut_reason(&frame.get_column_names().iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", ")),
    })?;
    let one = |v: AnyValue<'_>| match v {
        AnyValue::Null => Ok(None),
        v => convert(&v).map(Some).ok_or_else(|| TableError::WrongType {
            name: name.to_owned(),
            wanted,
            found: format!("{} ({})", cut_reason(&v.to_string()), column.dtype()),
        }),
    };
    column.as_materialized_series().iter().map(one).collect()
}

/// The real numbers of a column of f64 or f32.
///
/// # Errors
/// [`TableError::NoColumn`], [`TableError::WrongType`], [`TableError::Nulls`].
pub fn column_f64(frame: &DataFrame, name: &str) -> Result<Vec<f64>, TableError> {
    take(frame, name, "real numbers", |v| match v {
        AnyValue::Float64(v) => Some(*v),
        AnyValue::Float32(v) => Some(f64::from(*v)),
        _ => None,
    })
}

/// The integers of a column of an integer type.
///
/// # Errors
/// [`TableError::NoColumn`], [`TableError::WrongType`], [`TableError::Nulls`].
pub fn column_i64(frame: &DataFrame, name: &str) -> Result<Vec<i64>, TableError> {
    take(frame, name, "integers", |v| match v {
        AnyValue::Int64(v) => Some(*v),
        AnyValue::Int32(v) => Some(i64::from(*v)),
        AnyValue::UInt32(v) => Some(i64::from(*v)),
        AnyValue::UInt64(v) => i64::try_from(*v).ok(),
        _ => None,
    })
}

/// The text of a column.
///
/// # Errors
/// [`TableError::NoColumn`], [`TableError::WrongType`], [`TableError::Nulls`].
pub fn column_text(frame: &DataFrame, name: &str) -> Result<Vec<String>, TableError> {
    take(frame, name, "text", |v| match v {
        AnyValue::String(s) => Some((*s).to_owned()),
        AnyValue::StringOwned(s) => Some(s.to_string()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_numbers_keep_four_digits() {
        for (v, text) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (1.0 / 3.0, "0.3333"),
            (-12.345_678, "-12.35"),
            (59_999.6, "60000"),
            (1.0e6, "1e6"),
            (1.234_56e-7, "1.235e-7"),
            (0.999_99, "1"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(real(v, 4), text);
        }
        assert_eq!(real(1.0 / 3.0, 2), "0.33");
    }
}

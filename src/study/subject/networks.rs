//! Tables of several networks: the columns `dataset` and `network`, and those of each network's own table.

use polars::prelude::{DataFrame, PolarsError};
use serde::{Deserialize, Serialize};

use crate::frame::{TableError, column_text, texts};

/// Rows that are about one network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OfNetwork<R> {
    /// Its data set.
    pub dataset: String,
    /// Its name.
    pub network: String,
    /// The rows.
    pub rows: Vec<R>,
}

impl<R> OfNetwork<R> {
    /// Data set and network, as panels and legends have them.
    pub fn title(&self) -> String {
        format!("{}, {}", self.dataset, self.network)
    }

    /// Whether these are rows of this network of this data set.
    pub fn is_of(&self, dataset: &str, network: &str) -> bool {
        self.dataset == dataset && self.network == network
    }
}

/// Both kinds of rows of each network, all its cells together.
pub fn halves<A, B>(networks: Vec<OfNetwork<(Vec<A>, Vec<B>)>>) -> (Vec<OfNetwork<A>>, Vec<OfNetwork<B>>) {
    networks
        .into_iter()
        .map(|OfNetwork { dataset, network, rows }| {
            let (a, b): (Vec<Vec<A>>, Vec<Vec<B>>) = rows.into_iter().unzip();
            let (a, b) = (a.into_iter().flatten().collect(), b.into_iter().flatten().collect());
            let first = OfNetwork { dataset: dataset.clone(), network: network.clone(), rows: a };
            (first, OfNetwork { dataset, network, rows: b })
        })
        .unzip()
}

const KEYS: [&str; 2] = ["dataset", "network"];

/// The tables that `frame` makes of the rows of each network, one below the other.
///
/// # Errors
/// Those of `frame`; [`TableError::Frame`] for tables with different columns.
pub fn by_network<R>(
    networks: &[OfNetwork<R>],
    frame: impl Fn(&[R]) -> Result<DataFrame, TableError>,
) -> Result<DataFrame, TableError> {
    let failed =
        |e: PolarsError| TableError::Frame { caption: "rows of networks".into(), reason: e.to_string() };
    let keyed = |keys: [&str; 2], rows: &[R]| {
        let mut one = frame(rows)?;
        for (place, (name, key)) in KEYS.into_iter().zip(keys).enumerate() {
            one.insert_column(place, texts(name, &vec![key; rows.len()])).map_err(failed)?;
        }
        Ok::<_, TableError>(one)
    };
    let mut all = keyed([""; 2], &[])?;
    for of in networks {
        all.vstack_mut(&keyed([&of.dataset, &of.network], &of.rows)?).map_err(failed)?;
    }
    Ok(all)
}

/// The networks of [`by_network`], which had rows, with what `rows` reads of the table of each.
///
/// # Errors
/// Those of `rows`; [`TableError`] without the two columns.
pub fn networks_of<R>(
    frame: &DataFrame,
    rows: impl Fn(&DataFrame) -> Result<Vec<R>, TableError>,
) -> Result<Vec<OfNetwork<R>>, TableError> {
    let [datasets, networks] = KEYS.map(|key| column_text(frame, key));
    let keys: Vec<(String, String)> = datasets?.into_iter().zip(networks?).collect();
    let mut start = 0;
    keys.chunk_by(|a, b| a == b)
        .map(|chunk| {
            let (dataset, network) = chunk[0].clone();
            let rows = rows(&frame.slice(start as i64, chunk.len()))?;
            start += chunk.len();
            Ok(OfNetwork { dataset, network, rows })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{column_i64, frame, integers};

    fn one(rows: &[i64]) -> Result<DataFrame, TableError> {
        frame("one", vec![integers("k", rows.to_vec())])
    }

    #[test]
    fn networks_come_back_with_their_rows() {
        let of = |dataset: &str, network: &str, rows: &[i64]| OfNetwork {
            dataset: dataset.into(),
            network: network.into(),
            rows: rows.to_vec(),
        };
        let all = [of("mnist", "wide", &[1, 2]), of("mnist", "deep", &[1]), of("faces", "deep", &[3, 4, 5])];
        let frame = by_network(&all, one).unwrap();
        assert_eq!(frame.shape(), (6, 3));
        let read = |frame: &DataFrame| column_i64(frame, "k");
        assert_eq!(networks_of(&frame, read).unwrap(), all);
        assert!(networks_of(&frame.drop("network").unwrap(), read).is_err());
        assert_eq!(all[0].title(), "mnist, wide");
        assert!(networks_of(&by_network(&[], one).unwrap(), read).unwrap().is_empty());
    }

    #[test]
    fn other_columns_are_refused() {
        let of = |rows: &[i64]| OfNetwork { dataset: "a".into(), network: "b".into(), rows: rows.to_vec() };
        let uneven = |rows: &[i64]| {
            let name = if rows.len() > 1 { "k" } else { "n" };
            frame("one", vec![integers(name, rows.to_vec())])
        };
        assert!(by_network(&[of(&[1]), of(&[1, 2])], uneven).is_err());
    }
}

//! The table of claims: as a frame, and as Markdown.

use std::fmt::Write as _;

use polars::prelude::{Column, DataFrame, NamedFrom, Series};

use crate::frame::{Table, TableError, column_text, frame, real, strings, texts};
use crate::study::claims::{Claim, Verdict};
use crate::study::subject::cell::distances;

/// Name of the stored table, without its ending.
pub const NAME: &str = "claims";

/// One row a claim: `claim`, `figure`, `dataset`, `network`, `statistic`, `value`, `low` and `high` of its interval, `p`,
/// `verdict` and `command`. Numbers are missing where there are none.
///
/// # Errors
/// As [`frame`].
pub fn claims_frame(claims: &[Claim]) -> Result<DataFrame, TableError> {
    let text =
        |name: &str, of: fn(&Claim) -> &String| strings(name, claims.iter().map(|c| of(c).clone()).collect());
    let number = |name: &str, of: fn(&Claim) -> Option<f64>| -> Column {
        Series::new(name.into(), claims.iter().map(of).collect::<Vec<_>>()).into()
    };
    frame(
        "claims",
        vec![
            text("claim", |c| &c.claim),
            text("figure", |c| &c.figure),
            text("dataset", |c| &c.dataset),
            text("network", |c| &c.network),
            text("statistic", |c| &c.statistic),
            number("value", |c| c.value),
            number("low", |c| c.interval.map(|i| i[0])),
            number("high", |c| c.interval.map(|i| i[1])),
            number("p", |c| c.p),
            texts("verdict", &claims.iter().map(|c| c.verdict.name()).collect::<Vec<_>>()),
            text("command", |c| &c.command),
        ],
    )
}

/// The rows of [`claims_frame`].
///
/// # Errors
/// [`TableError`] for a missing column, another type, an unknown verdict.
pub fn claims_rows(frame: &DataFrame) -> Result<Vec<Claim>, TableError> {
    let names = ["claim", "figure", "dataset", "network", "statistic", "command"];
    let mut texts = Vec::with_capacity(names.len());
    for name in names {
        texts.push(column_text(frame, name)?.into_iter());
    }
    let (value, low, high, p) = (
        distances(frame, "value")?,
        distances(frame, "low")?,
        distances(frame, "high")?,
        distances(frame, "p")?,
    );
    let mut rows = Vec::with_capacity(frame.height());
    for (i, name) in column_text(frame, "verdict")?.into_iter().enumerate() {
        let verdict = Verdict::ALL.into_iter().find(|v| v.name() == name).ok_or_else(|| {
            TableError::WrongType { name: "verdict".into(), wanted: "verdicts", found: name.clone() }
        })?;
        let mut next = |column: usize| texts[column].next().unwrap_or_default();
        rows.push(Claim {
            claim: next(0),
            figure: next(1),
            dataset: next(2),
            network: next(3),
            statistic: next(4),
            value: value[i],
            interval: low[i].zip(high[i]).map(|(low, high)| [low, high]),
            p: p[i],
            verdict,
            command: next(5),
        });
    }
    Ok(rows)
}

/// The value with its interval, and the probability where there is one, as text.
pub fn measured(claim: &Claim) -> String {
    let Some(value) = claim.value else { return "\u{2014}".into() };
    let mut text = real(value, 3);
    if let Some([low, high]) = claim.interval {
        let _ = write!(text, " [{}, {}]", real(low, 3), real(high, 3));
    }
    if let Some(p) = claim.p {
        let _ = if p < 1e-4 { write!(text, ", p < 0.0001") } else { write!(text, ", p = {}", real(p, 2)) };
    }
    text
}

/// The claims in words, a row each.
///
/// # Errors
/// As [`frame`].
pub fn claims_table(claims: &[Claim]) -> Result<Table, TableError> {
    let words = |of: fn(&Claim) -> String| claims.iter().map(of).collect();
    let columns = vec![
        strings("claim", words(|c| c.claim.clone())),
        strings("figure", words(|c| c.figure.clone())),
        strings("data", words(|c| c.dataset.clone())),
        strings("network", words(|c| c.network.clone())),
        strings("measured", words(measured)),
        strings("verdict", words(|c| c.verdict.name().to_owned())),
    ];
    Ok(Table::new("Claims of the paper, with 95 percent intervals", columns)?.rows(claims.len()))
}

/// The claims as a table of Markdown.
pub fn claims_markdown(claims: &[Claim]) -> String {
    let mut text = String::from(
        "| Claim | Figure | Data | Network | Statistic | Measured (95 % interval) | Verdict | Command |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for c in claims {
        // A bar would end a cell.
        let cell = |s: &str| s.replace('|', "\\|");
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | **{}** | `{}` |",
            cell(&c.claim),
            cell(&c.figure),
            cell(&c.dataset),
            cell(&c.network),
            cell(&c.statistic),
            measured(c),
            c.verdict.name(),
            cell(&c.command),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> [Claim; 2] {
        let one = Claim {
            claim: "spurious samples peak".into(),
            figure: "Fig. 4A".into(),
            dataset: "mnist".into(),
            network: "mlp128".into(),
            statistic: "largest |fraction|".into(),
            value: Some(0.25),
            interval: Some([0.2, 0.3]),
            p: Some(1e-9),
            verdict: Verdict::Holds,
            command: "mem2gen sweep collect".into(),
        };
        let none = Claim {
            statistic: "no samples".into(),
            value: None,
            interval: None,
            p: None,
            verdict: Verdict::NotMeasured,
            ..one.clone()
        };
        [one, none]
    }

    #[test]
    fn claims_come_back_as_they_were() {
        let claims = claims();
        assert_eq!(claims_rows(&claims_frame(&claims).unwrap()).unwrap(), claims);
        assert!(claims_rows(&claims_frame(&[]).unwrap()).unwrap().is_empty());
    }

    #[test]
    fn markdown_has_a_row_a_claim_of_eight_cells() {
        let text = claims_markdown(&claims());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|l| l.replace("\\|", "").matches('|').count() == 9), "{text}");
        assert!(lines[2].contains("0.25 [0.2, 0.3], p < 0.0001 | **holds**"), "{text}");
        assert!(lines[3].contains("| \u{2014} | **not measured**"), "{text}");
    }
}

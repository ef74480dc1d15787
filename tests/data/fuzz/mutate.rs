//! Changes of good files.

use super::Case;

/// Numbers in texts: ends of ranges of types, and values that are no sizes.
const NUMBERS: [&str; 20] = [
    "0",
    "1",
    "2",
    "3",
    "7",
    "-1",
    "-0",
    "255",
    "256",
    "65535",
    "65536",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "1e400",
    "0.5",
    "1e-320",
    "nan",
];

/// A copy of `good` with at least one change; `other` is a source of parts.
pub fn changed(case: &mut Case, good: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    loop {
        change(case, &mut bytes, other);
        if case.one_in(2) {
            return bytes;
        }
    }
}

fn change(case: &mut Case, bytes: &mut Vec<u8>, other: &[u8]) {
    let length = bytes.len();
    if length == 0 {
        bytes.extend(case.bytes(40));
        return;
    }
    let at = place(case, length);
    match case.below(13) {
        0 => bytes[at] ^= 1 << case.below(8),
        1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][case.below(5)],
        2 => bytes[at] = case.byte(),
        3 => bytes.truncate(at),
        4 => bytes.extend(case.bytes(40)),
        5 => {
            let end = (at + 1 + case.below(16)).min(length);
            bytes.drain(at..end);
        }
        6 => {
            let end = (at + 1 + case.below(64)).min(length);
            let part = bytes[at..end].to_vec();
            let to = case.below(length);
            bytes.splice(to..to, part);
        }
        7 if !other.is_empty() => {
            let from = case.below(other.len());
            let end = (from + 1 + case.below(64)).min(other.len());
            let until = if case.one_in(2) { (at + end - from).min(length) } else { at };
            bytes.splice(at..until, other[from..end].iter().copied());
        }
        7 | 8 => number(case, bytes),
        // A field of some bytes, in either order.
        which => {
            let width = [1, 2, 4, 8][which - 9];
            let value = match case.below(4) {
                0 => case.below(300) as u64,
                1 => u64::MAX - case.below(3) as u64,
                2 => 1 << case.below(64),
                _ => (length as u64 + case.below(9) as u64).wrapping_sub(4),
            };
            let field = if case.one_in(2) {
                value.to_le_bytes()[..width].to_vec()
            } else {
                value.to_be_bytes()[8 - width..].to_vec()
            };
            let end = (at + width).min(length);
            bytes.splice(at..end, field);
        }
    }
}

/// An index, more often near either end, where formats have their headers.
fn place(case: &mut Case, length: usize) -> usize {
    let near = case.below(length.min(128));
    match case.below(4) {
        0 => near,
        1 => length - 1 - near,
        _ => case.below(length),
    }
}

/// Replaces a decimal number in the bytes.
fn number(case: &mut Case, bytes: &mut Vec<u8>) {
    let starts: Vec<usize> = (0..bytes.len())
        .filter(|&i| bytes[i].is_ascii_digit() && (i == 0 || !bytes[i - 1].is_ascii_digit()))
        .collect();
    if starts.is_empty() {
        return;
    }
    let start = starts[case.below(starts.len())];
    let end = start + bytes[start..].iter().take_while(|b| b.is_ascii_digit()).count();
    let new = case.of(&NUMBERS);
    bytes.splice(start..end, new.bytes());
}

/// A copy of a text with at least one change of a number, a line, or a word.
pub fn changed_text(case: &mut Case, good: &str, other: &str) -> String {
    let mut text = good.to_owned();
    loop {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let at = case.below(lines.len().max(1));
        match case.below(8) {
            0 if lines.len() > 1 => drop(lines.remove(at)),
            1 if lines.len() > 1 => {
                let other = case.below(lines.len());
                lines.swap(at, other);
            }
            2 => {
                let all: Vec<&str> = other.lines().collect();
                lines.insert(at, case.of(&all).to_owned());
            }
            3 | 4 if !lines.is_empty() => {
                let mut line = std::mem::take(&mut lines[at]).into_bytes();
                change(case, &mut line, other.as_bytes());
                lines[at] = String::from_utf8_lossy(&line).into_owned();
            }
            _ => {
                let mut bytes = lines.join("\n").into_bytes();
                number(case, &mut bytes);
                lines = String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect();
            }
        }
        text = lines.join("\n");
        if case.one_in(2) {
            return text;
        }
    }
}

/// Writes the checksums of all chunks of a PNG anew, as far as its lengths lead.
pub fn with_png_sums(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut at = 8;
    while let Some(&[a, b, c, d]) = bytes.get(at..at + 4) {
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let end = at + 8 + length;
        if end + 4 > bytes.len() {
            break;
        }
        let mut sum = flate2::Crc::new();
        sum.update(&bytes[at + 4..end]);
        bytes[end..end + 4].copy_from_slice(&sum.sum().to_be_bytes());
        at = end + 4;
    }
    bytes
}

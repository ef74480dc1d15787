//! The arithmetic opcodes of PTX, on registers of 64 bits that hold narrower values zero-extended.

/// A function of one, two or three registers.
#[derive(Clone, Copy)]
pub enum Function {
    One(fn(u64) -> u64),
    Two(fn(u64, u64) -> u64),
    Three(fn(u64, u64, u64) -> u64),
}
use Function::{One, Three, Two};

fn f(a: u64) -> f32 {
    f32::from_bits(a as u32)
}

fn d(a: u64) -> f64 {
    f64::from_bits(a)
}

fn uf(x: f32) -> u64 {
    u64::from(x.to_bits())
}

fn ud(x: f64) -> u64 {
    x.to_bits()
}

/// A result of the approximating unit, with the largest error that the PTX manual allows, up or down depending on the
/// argument's bits, so that a kernel passes only if it tolerates this error. Powers of two stay exact.
fn approximate(exact: f64, relative: f64, argument: u64) -> u64 {
    let up = argument.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63 == 0;
    let mantissa = exact.to_bits() & ((1 << 52) - 1);
    let off = if mantissa == 0 { 0.0 } else { relative };
    uf((exact * if up { 1.0 + off } else { 1.0 - off }) as f32)
}

/// Error of 2^-22.5 relative to the power of two below, which is within the two units in the last place that CUDA
/// guarantees for exp2f.
fn ex2(a: u64) -> u64 {
    let exact = f64::from(f(a)).exp2();
    let mantissa = f64::from_bits(exact.to_bits() & ((1 << 52) - 1) | 1023 << 52);
    approximate(exact, 2f64.powf(-22.5) / mantissa, a)
}

fn flushed(a: u64) -> u64 {
    if f(a).is_subnormal() { a & 0x8000_0000 } else { a }
}

/// lg2 has an absolute error of 2^-22 for results between -1 and 1, and a relative one for others.
fn lg2(a: u64) -> u64 {
    let exact = f64::from(f(a)).log2();
    approximate(exact, 2f64.powi(-22) / exact.abs().clamp(1e-30, 1.0), a)
}

/// min and max of PTX: the other operand of a NaN is the result, and -0 is below +0.
macro_rules! lesser {
    ($to:ident, $from:ident) => {
        |a, b| {
            let (x, y) = ($to(a), $to(b));
            let a_first = y.is_nan() || x < y || (x == y && x.is_sign_negative());
            if a_first { a } else { $from(y) }
        }
    };
}
macro_rules! greater {
    ($to:ident, $from:ident) => {
        |a, b| {
            let (x, y) = ($to(a), $to(b));
            let a_first = y.is_nan() || x > y || (x == y && y.is_sign_negative());
            if a_first { a } else { $from(y) }
        }
    };
}

/// The operations of one integer type: signed `$s`, unsigned `$u`, this type `$t`, twice as wide `$w`.
macro_rules! integer {
    ($name:expr, $t:ty, $u:ty, $w:ty) => {{
        const BITS: u64 = <$t>::BITS as u64;
        // Results go through the unsigned type, or `as u64` would spread the sign.
        Some(match $name {
            "add" => Two(|a, b| (a as $u).wrapping_add(b as $u) as u64),
            "sub" => Two(|a, b| (a as $u).wrapping_sub(b as $u) as u64),
            "mul.lo" => Two(|a, b| (a as $u).wrapping_mul(b as $u) as u64),
            "mul.hi" => Two(|a, b| (((a as $t as $w) * (b as $t as $w)) >> BITS) as $u as u64),
            "mad.lo" => Three(|a, b, c| (a as $u).wrapping_mul(b as $u).wrapping_add(c as $u) as u64),
            "mad.hi" => Three(|a, b, c| {
                ((((a as $t as $w) * (b as $t as $w)) >> BITS) as $u).wrapping_add(c as $u) as u64
            }),
            // Division by zero is undefined on the device, which usually gives all ones.
            "div" => Two(|a, b| match b as $t {
                0 => !0 as $u as u64,
                b => (a as $t).wrapping_div(b) as $u as u64,
            }),
            "rem" => Two(|a, b| match b as $t {
                0 => a,
                b => (a as $t).wrapping_rem(b) as $u as u64,
            }),
            "min" => Two(|a, b| (a as $t).min(b as $t) as $u as u64),
            "max" => Two(|a, b| (a as $t).max(b as $t) as $u as u64),
            "shl" => Two(|a, b| if b as u32 as u64 >= BITS { 0 } else { ((a as $u) << (b as u32)) as u64 }),
            "shr" => Two(|a, b| {
                let by = (b as u32).min(BITS as u32 - 1);
                let one = (a as $t) >> by;
                (if b as u32 as u64 >= BITS { one >> 1 } else { one }) as $u as u64
            }),
            "and" => Two(|a, b| (a & b) as $u as u64),
            "or" => Two(|a, b| (a | b) as $u as u64),
            "xor" => Two(|a, b| (a ^ b) as $u as u64),
            "not" => One(|a| !a as $u as u64),
            "neg" => One(|a| (a as $u).wrapping_neg() as u64),
            "popc" => One(|a| (a as $u).count_ones() as u64),
            "clz" => One(|a| (a as $u).leading_zeros() as u64),
            "brev" => One(|a| (a as $u).reverse_bits() as u64),
            "bfe" => Three(|a, at, len| {
                let (at, len) = (at & 0xff, len & 0xff);
                if len == 0 {
                    return 0;
                }
                let left = BITS.saturating_sub(at + len);
                let moved = if at >= BITS { 0 } else { (a as $u) << left };
                ((moved as $t) >> (left + at).min(BITS - 1)) as $u as u64
            }),
            "setp.eq" => Two(|a, b| u64::from(a as $t == b as $t)),
            "setp.ne" => Two(|a, b| u64::from(a as $t != b as $t)),
            "setp.lt" | "setp.lo" => Two(|a, b| u64::from((a as $t) < b as $t)),
            "setp.le" | "setp.ls" => Two(|a, b| u64::from(a as $t <= b as $t)),
            "setp.gt" | "setp.hi" => Two(|a, b| u64::from(a as $t > b as $t)),
            "setp.ge" | "setp.hs" => Two(|a, b| u64::from(a as $t >= b as $t)),
            "selp" => Three(|a, b, p| if p != 0 { a } else { b }),
            _ => return None,
        })
    }};
}

/// The operations that f32 and f64 have in common.
macro_rules! float {
    ($name:expr, $to:ident, $from:ident) => {
        match $name {
            "add" | "add.rn" => Some(Two(|a, b| $from($to(a) + $to(b)))),
            "sub" | "sub.rn" => Some(Two(|a, b| $from($to(a) - $to(b)))),
            "mul" | "mul.rn" => Some(Two(|a, b| $from($to(a) * $to(b)))),
            "fma.rn" => Some(Three(|a, b, c| $from($to(a).mul_add($to(b), $to(c))))),
            "div.rn" => Some(Two(|a, b| $from($to(a) / $to(b)))),
            "rcp.rn" => Some(One(|a| $from(1.0 / $to(a)))),
            "sqrt.rn" => Some(One(|a| $from($to(a).sqrt()))),
            "neg" => Some(One(|a| $from(-$to(a)))),
            "abs" => Some(One(|a| $from($to(a).abs()))),
            "min" => Some(Two(lesser!($to, $from))),
            "max" => Some(Two(greater!($to, $from))),
            "copysign" => Some(Two(|a, b| $from($to(b).copysign($to(a))))),
            "cvt.rni" => Some(One(|a| $from($to(a).round_ties_even()))),
            "cvt.rzi" => Some(One(|a| $from($to(a).trunc()))),
            "cvt.rmi" => Some(One(|a| $from($to(a).floor()))),
            "cvt.rpi" => Some(One(|a| $from($to(a).ceil()))),
            "setp.eq" => Some(Two(|a, b| u64::from($to(a) == $to(b)))),
            "setp.ne" => Some(Two(|a, b| u64::from($to(a) < $to(b) || $to(a) > $to(b)))),
            "setp.lt" => Some(Two(|a, b| u64::from($to(a) < $to(b)))),
            "setp.le" => Some(Two(|a, b| u64::from($to(a) <= $to(b)))),
            "setp.gt" => Some(Two(|a, b| u64::from($to(a) > $to(b)))),
            "setp.ge" => Some(Two(|a, b| u64::from($to(a) >= $to(b)))),
            "setp.equ" => Some(Two(|a, b| u64::from(!($to(a) < $to(b) || $to(a) > $to(b))))),
            "setp.neu" => Some(Two(|a, b| u64::from($to(a) != $to(b)))),
            "setp.ltu" => Some(Two(|a, b| u64::from($to(a) >= $to(b)) ^ 1)),
            "setp.leu" => Some(Two(|a, b| u64::from($to(a) > $to(b)) ^ 1)),
            "setp.gtu" => Some(Two(|a, b| u64::from($to(a) <= $to(b)) ^ 1)),
            "setp.geu" => Some(Two(|a, b| u64::from($to(a) < $to(b)) ^ 1)),
            "setp.num" => Some(Two(|a, b| u64::from(!$to(a).is_nan() && !$to(b).is_nan()))),
            "setp.nan" => Some(Two(|a, b| u64::from($to(a).is_nan() || $to(b).is_nan()))),
            "selp" => Some(Three(|a, b, p| if p != 0 { a } else { b })),
            _ => None,
        }
    };
}

/// The function of an opcode with its type, such as `add` of `f32` or `setp.lt` of `s32`; none if it is unknown.
pub fn function(name: &str, of: &str) -> Option<Function> {
    match of {
        "f32" => float!(name, f, uf).or_else(|| single(name)),
        // The high half of the argument counts, and the high half of the result is given.
        "f64" if name == "rcp.approx.ftz" => Some(One(|a| ud(1.0 / d(a & !0xffff_ffff)) & !0xffff_ffff)),
        "f64" => float!(name, d, ud),
        "u16" | "b16" => integer!(name, u16, u16, u32),
        "s16" => integer!(name, i16, u16, i32),
        "u32" | "b32" => narrow(name).or_else(|| integer!(name, u32, u32, u64)),
        "s32" => integer32(name).or_else(|| wide(name, of)),
        "u64" | "b64" => integer!(name, u64, u64, u128),
        "s64" => integer!(name, i64, u64, i128),
        "pred" => predicate(name),
        _ => None,
    }
    .or_else(|| wide(name, of))
}

fn integer32(name: &str) -> Option<Function> {
    match name {
        "abs" => Some(One(|a| u64::from((a as i32).unsigned_abs()))),
        _ => integer!(name, i32, u32, i64),
    }
}

fn wide(name: &str, of: &str) -> Option<Function> {
    Some(match (name, of) {
        ("mul.wide", "u16") => Two(|a, b| u64::from(a as u16) * u64::from(b as u16)),
        ("mul.wide", "s16") => Two(|a, b| (i32::from(a as i16) * i32::from(b as i16)) as u32 as u64),
        ("mul.wide", "u32") => Two(|a, b| (a as u32 as u64) * (b as u32 as u64)),
        ("mul.wide", "s32") => Two(|a, b| (i64::from(a as i32) * i64::from(b as i32)) as u64),
        ("mad.wide", "u32") => Three(|a, b, c| ((a as u32 as u64) * (b as u32 as u64)).wrapping_add(c)),
        ("mad.wide", "s32") => {
            Three(|a, b, c| ((i64::from(a as i32) * i64::from(b as i32)) as u64).wrapping_add(c))
        }
        ("abs", "s64") => One(|a| (a as i64).unsigned_abs()),
        _ => return None,
    })
}

fn single(name: &str) -> Option<Function> {
    Some(match name {
        "ex2.approx" => One(ex2),
        "ex2.approx.ftz" => One(|a| flushed(ex2(flushed(a)))),
        "lg2.approx" => One(lg2),
        "lg2.approx.ftz" => One(|a| flushed(lg2(flushed(a)))),
        "rcp.approx" => One(|a| approximate(1.0 / f64::from(f(a)), 2f64.powi(-23), a)),
        "rcp.approx.ftz" => One(|a| flushed(approximate(1.0 / f64::from(f(flushed(a))), 2f64.powi(-23), a))),
        "sqrt.approx" => One(|a| approximate(f64::from(f(a)).sqrt(), 2f64.powi(-23), a)),
        "rsqrt.approx" => One(|a| approximate(1.0 / f64::from(f(a)).sqrt(), 2f64.powf(-22.4), a)),
        "div.approx" | "div.full" => {
            Two(|a, b| approximate(f64::from(f(a)) / f64::from(f(b)), 2f64.powi(-22), a ^ b))
        }
        "cvt.sat" => One(|a| uf(if f(a).is_nan() { 0.0 } else { f(a).clamp(0.0, 1.0) })),
        _ => return None,
    })
}

/// Operations on 32 bits without a sign that no other type has.
fn narrow(name: &str) -> Option<Function> {
    Some(match name {
        "prmt" => Three(|a, b, by| {
            let bytes = ((b as u32 as u64) << 32) | (a as u32 as u64);
            (0..4).fold(0, |sum, i| {
                let select = by >> (4 * i);
                let byte = (bytes >> (8 * (select & 7))) & 0xff;
                let byte = match (select & 8 != 0, byte & 0x80 != 0) {
                    (false, _) => byte,
                    (true, true) => 0xff,
                    (true, false) => 0,
                };
                sum | (byte << (8 * i))
            })
        }),
        "bfind" => One(|a| u64::from(31u32.wrapping_sub((a as u32).leading_zeros()))),
        "bfind.shiftamt" => {
            One(|a| if a as u32 == 0 { 0xffff_ffff } else { u64::from((a as u32).leading_zeros()) })
        }
        "shf.l.wrap" => Three(|a, b, by| ((pair(a, b) << (by & 31)) >> 32) as u32 as u64),
        "shf.r.wrap" => Three(|a, b, by| (pair(a, b) >> (by & 31)) as u32 as u64),
        "shf.l.clamp" => Three(|a, b, by| ((pair(a, b) << (by as u32).min(32)) >> 32) as u32 as u64),
        "shf.r.clamp" => Three(|a, b, by| (pair(a, b) >> (by as u32).min(32)) as u32 as u64),
        _ => return None,
    })
}

fn pair(low: u64, high: u64) -> u64 {
    (high << 32) | (low as u32 as u64)
}

fn predicate(name: &str) -> Option<Function> {
    Some(match name {
        "and" => Two(|a, b| a & b),
        "or" => Two(|a, b| a | b),
        "xor" => Two(|a, b| a ^ b),
        "not" => One(|a| a ^ 1),
        _ => return None,
    })
}

/// `cvt` from one type to another, with its rounding and `sat` in `how`.
pub fn conversion(how: &str, to: &str, from: &str) -> Option<Function> {
    macro_rules! from {
        ($($name:literal $t:ty),*) => {
            match (how, from) { $(("", $name) => to!(x, x as $t, ),)* _ => None }
        };
    }
    macro_rules! to {
        ($x:ident, $value:expr, $($extra:literal)*) => {
            match to {
                "u8" => Some(One(|$x| ($value) as u8 as u64)),
                "u16" => Some(One(|$x| ($value) as u16 as u64)),
                "s16" => Some(One(|$x| ($value) as i16 as u16 as u64)),
                "u32" => Some(One(|$x| ($value) as u32 as u64)),
                "s32" => Some(One(|$x| ($value) as i32 as u32 as u64)),
                "u64" => Some(One(|$x| ($value) as u64)),
                "s64" => Some(One(|$x| ($value) as i64 as u64)),
                _ => None,
            }
        };
    }
    macro_rules! rounded {
        ($to:ident) => {
            match how {
                "rni" => to!(x, $to(x).round_ties_even(),),
                "rzi" => to!(x, $to(x).trunc(),),
                "rmi" => to!(x, $to(x).floor(),),
                "rpi" => to!(x, $to(x).ceil(),),
                _ => None,
            }
        };
    }
    macro_rules! float_of {
        ($($name:literal $t:ty),*) => {
            match (to, from) {
                $(("f32", $name) => Some(One(|a| uf(a as $t as f32))),
                  ("f64", $name) => Some(One(|a| ud(a as $t as f64))),)*
                _ => None,
            }
        };
    }
    match (how, to, from) {
        ("rn", "f32", "f64") => Some(One(|a| uf(d(a) as f32))),
        ("", "f64", "f32") => Some(One(|a| ud(f64::from(f(a))))),
        (_, "f32", "f32") | (_, "f64", "f64") => function(&format!("cvt.{how}"), to),
        ("rn", "f32" | "f64", _) => {
            float_of!("u8" u8, "s8" i8, "u16" u16, "s16" i16, "u32" u32, "s32" i32, "u64" u64, "s64" i64)
        }
        (_, _, "f32") => rounded!(f),
        (_, _, "f64") => rounded!(d),
        _ => from!("u8" u8, "s8" i8, "u16" u16, "s16" i16, "u32" u32, "s32" i32, "u64" u64, "s64" i64),
    }
}

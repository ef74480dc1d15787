//! Pickles as Python writes dictionaries of arrays in protocol 3 with numpy 1.

use mem2gen::data::weights::Arrays;

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

fn size(out: &mut Vec<u8>, n: usize) {
    match n {
        0..256 => out.extend([b'K', n as u8]),
        256..65536 => out.extend([&b"M"[..], &(n as u16).to_le_bytes()].concat()),
        _ => out.extend([&b"J"[..], &(n as i32).to_le_bytes()].concat()),
    }
}

/// Arrays under names with one dot. Small objects come from the memo from the second time on.
pub fn pickled(arrays: &Arrays) -> Vec<u8> {
    let mut out = b"\x80\x03}q\x00(".to_vec();
    let mut outer: Option<&str> = None;
    for (i, (name, array)) in arrays.iter().enumerate() {
        let (folder, key) = name.split_once('.').unwrap();
        if outer != Some(folder) {
            if outer.is_some() {
                out.push(b'u');
            }
            text(&mut out, folder);
            out.extend(b"}q\x01(");
            outer = Some(folder);
        }
        text(&mut out, key);
        match i {
            0 => {
                out.extend(b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03");
                out.extend(b"K\x00\x85q\x04C\x01bq\x05\x87q\x06Rq\x07");
            }
            _ => out.extend(b"h\x02h\x03K\x00\x85q\x04h\x05\x87q\x06Rq\x07"),
        }
        out.extend(b"(K\x01(");
        array.shape().iter().for_each(|n| size(&mut out, *n));
        out.extend(b"tq\x08");
        match i {
            0 => {
                out.extend(b"cnumpy\ndtype\nq\x09");
                text(&mut out, "f4");
                out.extend(b"q\x0a\x89\x88\x87q\x0bRq\x0c(K\x03");
                text(&mut out, "<");
                out.extend(b"q\x0dNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb");
            }
            _ => out.extend(b"h\x0c"),
        }
        out.extend(b"\x89B");
        out.extend((4 * array.len() as u32).to_le_bytes());
        array.iter().for_each(|v| out.extend(v.to_le_bytes()));
        out.extend(b"q\x0ftq\x10b");
    }
    if outer.is_some() {
        out.push(b'u');
    }
    out.extend(b"u.");
    out
}

//! Global memory: buffers that record which of their words were written, and by which block in this launch.

use super::parse::POISON;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

const NEVER: u32 = 0;
const BEFORE: u32 = 1;
/// A writer is stored as its block's number plus this.
const FIRST_BLOCK: u32 = 2;
/// Size of the address range of each buffer, large enough that an overrun never reaches another buffer.
const WINDOW: u32 = 40;

struct Buffer {
    bytes: usize,
    words: Vec<AtomicU32>,
    writers: Vec<AtomicU32>,
}

/// All buffers of a device, by number; a freed one leaves its place empty.
#[derive(Default)]
pub struct Memory {
    buffers: Vec<Option<Buffer>>,
    pub used: usize,
}

/// The word of one access, which is aligned to its own size of at most 4 bytes.
pub struct Place<'a> {
    words: &'a [AtomicU32],
    writers: &'a [AtomicU32],
    byte: usize,
}

impl Memory {
    pub fn alloc(&mut self, bytes: usize) -> u64 {
        let words = bytes.div_ceil(4);
        self.buffers.push(Some(Buffer {
            bytes,
            words: (0..words).map(|_| AtomicU32::new(POISON as u32)).collect(),
            writers: (0..words).map(|_| AtomicU32::new(NEVER)).collect(),
        }));
        self.used += bytes;
        self.buffers.len() as u64
    }

    pub fn free(&mut self, number: u64) -> Result<(), String> {
        let buffer = self.buffers.get_mut((number as usize).wrapping_sub(1)).and_then(Option::take);
        self.used -= buffer.as_ref().ok_or("no such buffer, or freed before")?.bytes;
        Ok(())
    }

    pub fn address(number: u64, offset: usize) -> u64 {
        (number << WINDOW) + offset as u64
    }

    /// This many bytes at an address, in one access.
    pub fn place(&self, address: u64, bytes: usize) -> Result<Place<'_>, String> {
        let number = (address >> WINDOW) as usize;
        let byte = (address & ((1 << WINDOW) - 1)) as usize;
        let buffer = match self.buffers.get(number.wrapping_sub(1)) {
            Some(Some(buffer)) => buffer,
            Some(None) => return Err("in a buffer that was freed".into()),
            None => return Err(format!("at {address:#x}, which is in no buffer")),
        };
        if byte + bytes > buffer.bytes {
            return Err(format!("{bytes} bytes at byte {byte} of a buffer of {}", buffer.bytes));
        }
        if !byte.is_multiple_of(bytes) {
            return Err(format!("{bytes} bytes at byte {byte}, which is not aligned"));
        }
        Ok(Place { words: &buffer.words[byte / 4..], writers: &buffer.writers[byte / 4..], byte })
    }

    pub fn write(&self, number: u64, offset: usize, bytes: &[u8]) -> Result<(), String> {
        for (i, b) in bytes.iter().enumerate() {
            let at = Self::address(number, offset + i);
            let place = self.place(at, 1)?;
            place.put(u32::from(*b), 1);
            place.writers[0].store(BEFORE, Relaxed);
        }
        Ok(())
    }

    pub fn read(&self, number: u64, offset: usize, bytes: &mut [u8]) -> Result<(), String> {
        for (i, b) in bytes.iter_mut().enumerate() {
            let place = self.place(Self::address(number, offset + i), 1)?;
            if place.writers[0].load(Relaxed) == NEVER {
                return Err(format!("byte {} was never written", offset + i));
            }
            *b = place.get(1) as u8;
        }
        Ok(())
    }

    /// Ends a launch: for the next launch, its writes count as earlier writes.
    pub fn end_launch(&self) {
        for buffer in self.buffers.iter().flatten() {
            for writer in &buffer.writers {
                if writer.load(Relaxed) != NEVER {
                    writer.store(BEFORE, Relaxed);
                }
            }
        }
    }
}

impl Place<'_> {
    fn get(&self, bytes: usize) -> u32 {
        let word = self.words[0].load(Relaxed);
        if bytes == 4 { word } else { (word >> (8 * (self.byte % 4))) & ((1 << (8 * bytes)) - 1) }
    }

    fn put(&self, value: u32, bytes: usize) {
        if bytes == 4 {
            self.words[0].store(value, Relaxed);
        } else {
            let shift = 8 * (self.byte % 4);
            let mask = ((1 << (8 * bytes)) - 1) << shift;
            let word = self.words[0].load(Relaxed);
            self.words[0].store((word & !mask) | ((value << shift) & mask), Relaxed);
        }
    }

    /// One element of the access, of 1, 2, 4 or 8 bytes.
    pub fn load(&self, element: usize, bytes: usize, block: u32) -> Result<u64, String> {
        let first = element * bytes / 4;
        let mut value = 0;
        for i in 0..bytes.div_ceil(4) {
            let at = Place {
                words: &self.words[first + i..],
                writers: &self.writers[first + i..],
                byte: self.byte,
            };
            match at.writers[0].load(Relaxed) {
                NEVER => return Err("of memory that nothing wrote".into()),
                BEFORE => {}
                by if by == block + FIRST_BLOCK => {}
                by => return Err(format!("of what block {} writes in the same launch", by - FIRST_BLOCK)),
            }
            value |= u64::from(at.get(bytes.min(4))) << (32 * i);
        }
        Ok(value)
    }

    pub fn store(&self, element: usize, bytes: usize, value: u64, block: u32) -> Result<(), String> {
        let first = element * bytes / 4;
        for i in 0..bytes.div_ceil(4) {
            let at = Place {
                words: &self.words[first + i..],
                writers: &self.writers[first + i..],
                byte: self.byte,
            };
            let by = at.writers[0].swap(block + FIRST_BLOCK, Relaxed);
            if by >= FIRST_BLOCK && by != block + FIRST_BLOCK {
                return Err(format!("over what block {} writes in the same launch", by - FIRST_BLOCK));
            }
            at.put((value >> (32 * i)) as u32, bytes.min(4));
        }
        Ok(())
    }
}

//! The GPT-2 byte alphabet: every byte is written as one printable character, so that vocabularies are text.

/// Characters of the alphabet lie below this code point.
const ALPHABET_END: usize = 0x144;

const fn is_printable(byte: usize) -> bool {
    matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

/// `CHARACTERS[b]` is the code point that stands for byte b: itself if printable, else the next one from U+0100.
const CHARACTERS: [u16; 256] = {
    let mut table = [0u16; 256];
    let (mut byte, mut next) = (0, 0x100);
    while byte < 256 {
        if is_printable(byte) {
            table[byte] = byte as u16;
        } else {
            table[byte] = next;
            next += 1;
        }
        byte += 1;
    }
    table
};

/// The inverse of `CHARACTERS`; -1 where no byte is written so.
const BYTES: [i16; ALPHABET_END] = {
    let mut table = [-1i16; ALPHABET_END];
    let mut byte = 0;
    while byte < 256 {
        table[CHARACTERS[byte] as usize] = byte as i16;
        byte += 1;
    }
    table
};

/// The character that stands for a byte.
pub fn char_of(byte: u8) -> char {
    char::from_u32(u32::from(CHARACTERS[usize::from(byte)])).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that a character stands for.
pub fn byte_of(character: char) -> Option<u8> {
    BYTES.get(character as usize).and_then(|&byte| u8::try_from(byte).ok())
}

/// Appends the bytes that `text` stands for; characters outside the alphabet stand for themselves.
pub fn decode_into(text: &str, out: &mut Vec<u8>) {
    for character in text.chars() {
        match byte_of(character) {
            Some(byte) => out.push(byte),
            None => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Appends `bytes` written in the alphabet.
pub fn encode_into(bytes: &[u8], out: &mut String) {
    out.extend(bytes.iter().map(|&byte| char_of(byte)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives() {
        let all: Vec<u8> = (0..=255).collect();
        let mut text = String::new();
        encode_into(&all, &mut text);
        assert_eq!(text.chars().count(), 256);
        assert!(!text.chars().any(|c| c.is_whitespace() || c.is_control()));
        let mut back = Vec::new();
        decode_into(&text, &mut back);
        assert_eq!(back, all);
    }

    #[test]
    fn known_letters() {
        assert_eq!(char_of(b' '), 'Ġ');
        assert_eq!(char_of(b'\n'), 'Ċ');
        assert_eq!(char_of(0xad), '\u{143}');
        assert_eq!(byte_of('\u{144}'), None);
        assert_eq!(byte_of(' '), None);
    }
}

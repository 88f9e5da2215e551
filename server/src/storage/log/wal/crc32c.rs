//! The Castagnoli CRC that RocksDB protects its write-ahead log with.

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// The checksum of these bytes as RocksDB stores it: rotated and shifted, so that a checksum of checksums is none.
pub fn masked(bytes: &[u8]) -> u32 {
    let crc = !bytes.iter().fold(!0, |crc: u32, byte| {
        (crc >> 8) ^ TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)]
    });
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_published_example() {
        // RFC 3720, B.4: 32 bytes of zeros.
        let crc: u32 = 0x8a91_36aa;
        assert_eq!(
            masked(&[0; 32]),
            crc.rotate_right(15).wrapping_add(0xa282_ead8)
        );
    }
}

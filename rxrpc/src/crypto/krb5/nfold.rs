//! Stretching or folding a string of bytes to a length (RFC 3961 5.1).

/// `N` bytes out of `input`, all of its bits having the same weight: copies of the input, each turned right by 13 bits
/// against the one before, are cut into pieces of `N` bytes and added with end-around carry.
pub(super) fn nfold<const N: usize>(input: &[u8]) -> [u8; N] {
    let mut sum = [0; N];
    if input.is_empty() || N == 0 {
        return sum;
    }
    let total = lcm(input.len(), N);
    let stretched: Vec<u8> = (0..total / input.len())
        .flat_map(|copy| (0..input.len()).map(move |index| turned(input, 13 * copy, index)))
        .collect();
    for piece in stretched.chunks_exact(N) {
        let mut carry = 0;
        for (byte, more) in sum.iter_mut().zip(piece).rev() {
            let wide = u16::from(*byte) + u16::from(*more) + carry;
            [_, *byte] = wide.to_be_bytes();
            carry = wide >> 8;
        }
        // The carry out of the first byte goes in at the last, and may run through once more.
        for byte in sum.iter_mut().rev() {
            let wide = u16::from(*byte) + carry;
            [_, *byte] = wide.to_be_bytes();
            carry = wide >> 8;
        }
    }
    sum
}

/// Byte `index` of the input turned right by `bits`.
fn turned(input: &[u8], bits: usize, index: usize) -> u8 {
    let len = input.len() * 8;
    let bit = |at: usize| {
        let at = (at + len - bits % len) % len;
        input.get(at / 8).map_or(0, |byte| (byte >> (7 - at % 8)) & 1)
    };
    (0..8).fold(0, |byte, offset| (byte << 1) | bit(index * 8 + offset))
}

fn lcm(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    /// RFC 3961 A.1.
    #[test]
    fn known_answers() {
        assert_eq!(nfold(b"012345"), hex!("be072631276b1955"));
        assert_eq!(nfold(b"password"), hex!("78a07b6caf85fa"));
        assert_eq!(
            nfold(b"Rough Consensus, and Running Code"),
            hex!("bb6ed30870b7f0e0")
        );
        assert_eq!(
            nfold(b"password"),
            hex!("59e4a8ca7c0385c3c37b3f6d2000247cb6e6bd5b3e")
        );
        assert_eq!(nfold(b"kerberos"), hex!("6b65726265726f73"));
        assert_eq!(nfold(b"kerberos"), hex!("6b65726265726f737b9b5b2b93132b93"));
        assert_eq!(
            nfold(b"Q"),
            hex!("518a54a2 15a8452a 518a54a2 15a8452a 518a54a2 15")
        );
    }
}

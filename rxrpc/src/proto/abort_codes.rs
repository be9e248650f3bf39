//! The abort codes of Rx itself and of its stub generator. Those of services are the services' own.

use super::seq::AbortCode;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        $($(#[$doc])* pub const $name: AbortCode = AbortCode($value);)*

        /// The name of a code of this module.
        #[must_use]
        pub const fn name(code: AbortCode) -> Option<&'static str> {
            Some(match code.0 {
                $($value => stringify!($name),)*
                _ => return None,
            })
        }
    };
}

codes! {
    /// The peer is not heard of any more, or the call was given up.
    RX_CALL_DEAD = -1;
    /// There is no such service, or none with this security class.
    RX_INVALID_OPERATION = -2;
    /// The call took too long.
    RX_CALL_TIMEOUT = -3;
    /// The stream ended too early.
    RX_EOF = -4;
    /// A rule of the protocol was broken.
    RX_PROTOCOL_ERROR = -5;
    /// The application gave the call up.
    RX_USER_ABORT = -6;
    /// The port is in use (never on the wire).
    RX_ADDRINUSE = -7;
    /// A datagram was too large. In a DEBUG reply: the question is not known.
    RX_MSGSIZE = -8;
    /// The service is starting: try again.
    RX_RESTARTING = -100;
    /// The client could not encode its arguments.
    RXGEN_CC_MARSHAL = -450;
    /// The client could not decode the results.
    RXGEN_CC_UNMARSHAL = -451;
    /// The service could not encode its results.
    RXGEN_SS_MARSHAL = -452;
    /// The service could not decode the arguments.
    RXGEN_SS_UNMARSHAL = -453;
    /// Something could not be decoded.
    RXGEN_DECODE = -454;
    /// The service has no such procedure.
    RXGEN_OPCODE = -455;
    /// Memory of decoded values could not be freed.
    RXGEN_SS_XDRFREE = -456;
    /// Memory of decoded values could not be freed.
    RXGEN_CC_XDRFREE = -457;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_names() {
        assert_eq!(name(AbortCode(-1)), Some("RX_CALL_DEAD"));
        assert_eq!(name(AbortCode(-455)), Some("RXGEN_OPCODE"));
        assert_eq!(name(AbortCode(0)), None);
        assert_eq!(name(AbortCode(19_270_400)), None);
    }
}

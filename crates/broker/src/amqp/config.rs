//! [`AmqpConfig`]: who may connect, and every bound of a connection.

use std::fmt;
use std::time::Duration;

/// Settings of the TCP front.
#[derive(Debug, Clone)]
pub struct AmqpConfig {
    /// Who may log in.
    pub users: Vec<User>,
    /// Most connections at a time; more are closed at once.
    pub connections_max: usize,
    /// Most channels of a connection.
    pub channel_max: u16,
    /// Longest frame, either way.
    pub frame_max: u32,
    /// Longest message: properties and body. Not over the broker's own bound.
    pub message_bytes_max: u32,
    /// Most bytes of messages that a connection has sent in part.
    pub unfinished_bytes_max: usize,
    /// Heartbeat proposed to clients, in seconds; theirs counts. 0 for none.
    pub heartbeat: u16,
    /// From accept to connection.open; then the connection is closed.
    pub handshake_timeout: Duration,
    /// How long a closing connection waits for the other side.
    pub close_timeout: Duration,
}

impl Default for AmqpConfig {
    fn default() -> Self {
        Self {
            users: vec![User {
                name: "guest".to_owned(),
                password: "guest".to_owned(),
                loopback_only: true,
            }],
            connections_max: 4096,
            channel_max: 2047,
            frame_max: 128 << 10,
            message_bytes_max: 16 << 20,
            unfinished_bytes_max: 64 << 20,
            heartbeat: 60,
            handshake_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
        }
    }
}

/// Somebody who may log in.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// Password, in the clear.
    pub password: String,
    /// Only from the machine the broker runs on.
    pub loopback_only: bool,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .field("loopback_only", &self.loopback_only)
            .finish_non_exhaustive()
    }
}

impl AmqpConfig {
    /// The user that a SASL PLAIN response (authorization, name, password; NUL between) names.
    pub(crate) fn log_in(&self, response: &[u8], from_loopback: bool) -> Option<&User> {
        let mut parts = response.splitn(3, |&byte| byte == 0);
        let (_, name, password) = (parts.next()?, parts.next()?, parts.next()?);
        self.users.iter().find(|user| {
            user.name.as_bytes() == name
                && equal(user.password.as_bytes(), password)
                && (from_loopback || !user.loopback_only)
        })
    }
}

/// Equality that takes as long for a near miss as for a far one.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_logs_in_known_users_and_guest_only_from_loopback() {
        let mut config = AmqpConfig::default();
        config.users.push(User {
            name: "anna".to_owned(),
            password: "secret".to_owned(),
            loopback_only: false,
        });
        #[track_caller]
        fn check(config: &AmqpConfig, response: &[u8], loopback: bool, expected: Option<&str>) {
            let user = config.log_in(response, loopback);
            assert_eq!(user.map(|user| user.name.as_str()), expected);
        }
        check(&config, b"\0guest\0guest", true, Some("guest"));
        check(&config, b"\0guest\0guest", false, None);
        check(&config, b"\0guest\0gues", true, None);
        check(&config, b"\0guest\0guest\0", true, None);
        check(&config, b"guest\0guest", true, None);
        check(&config, b"", true, None);
        check(&config, b"\0anna\0secret", false, Some("anna"));
        assert!(!format!("{config:?}").contains("secret"));
    }
}

//! How requests to AWS are signed.
//!
//! Spec: AWS Identity and Access Management, "Create a signed AWS API request" (Signature Version 4).

use farthing_primitives::Timestamp;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Who signs a request.
#[derive(Clone)]
pub(super) struct Credentials {
    pub access_key: String,
    pub secret: Zeroizing<String>,
    /// Comes with credentials that expire.
    pub token: Option<Zeroizing<String>>,
}

/// A POST to `/` without a query, which is all that AWS's JSON services know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Post<'a> {
    pub region: &'a str,
    pub service: &'a str,
    /// By their names in small letters, sorted, with values as they are sent and no space around them.
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

/// `20150830T123600Z`.
pub(super) fn amz_date(at: Timestamp) -> String {
    // `2015-08-30T12:36:00.000Z`, without the milliseconds.
    let mut text: String = at.to_string().chars().take(19).filter(|c| !matches!(c, '-' | ':')).collect();
    text.push('Z');
    text
}

impl Post<'_> {
    /// The value of `Authorization`. `date` is the value of the `x-amz-date` header. `None` if there is no HMAC with such a
    /// key, which is known of none.
    pub fn authorization(&self, credentials: &Credentials, date: &str) -> Option<String> {
        let day = date.split_once('T').map_or(date, |(day, _)| day);
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let canonical = format!("POST\n/\n\n{headers}\n{names}\n{}", hex::encode(Sha256::digest(self.body)));
        let to_sign = format!("{ALGORITHM}\n{date}\n{scope}\n{}", hex::encode(Sha256::digest(canonical)));
        let first = Zeroizing::new(format!("AWS4{}", credentials.secret.as_str()));
        let mut key = Zeroizing::new(hmac(first.as_bytes(), day.as_bytes())?);
        for part in [self.region, self.service, "aws4_request"] {
            key = Zeroizing::new(hmac(key.as_slice(), part.as_bytes())?);
        }
        let signature = hex::encode(hmac(key.as_slice(), to_sign.as_bytes())?);
        let access_key = &credentials.access_key;
        let signed_by = format!("{ALGORITHM} Credential={access_key}/{scope}");
        Some(format!("{signed_by}, SignedHeaders={names}, Signature={signature}"))
    }
}

fn hmac(key: &[u8], message: &[u8]) -> Option<[u8; 32]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(message);
    Some(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(token: Option<&str>) -> Credentials {
        Credentials {
            access_key: "AKIDEXAMPLE".to_owned(),
            secret: Zeroizing::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned()),
            token: token.map(|token| Zeroizing::new(token.to_owned())),
        }
    }

    const DATE: &str = "20150830T123600Z";
    /// The suite's example of a session token.
    const TOKEN: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRq\
                         TflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75Y\
                         U9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9K\
                         SYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";

    #[test]
    fn the_date_is_written_as_aws_writes_it() {
        assert_eq!(amz_date(Timestamp::from_millis(1_440_938_160_999)), DATE);
    }

    /// The vectors of AWS's own test suite: `post-vanilla`, `post-x-www-form-urlencoded` and `post-sts-header-before`.
    #[test]
    fn requests_are_signed_as_in_aws_s_test_suite() {
        let check = |headers: &[(&str, &str)], body: &str, names: &str, signature: &str| {
            let post = Post { region: "us-east-1", service: "service", headers, body: body.as_bytes() };
            let expected = format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders={names}, \
                 Signature={signature}"
            );
            assert_eq!(post.authorization(&credentials(None), DATE), Some(expected));
        };
        let (host, date) = (("host", "example.amazonaws.com"), ("x-amz-date", DATE));
        check(
            &[host, date],
            "",
            "host;x-amz-date",
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        );
        check(
            &[("content-type", "application/x-www-form-urlencoded"), host, date],
            "Param1=value1",
            "content-type;host;x-amz-date",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        );
        check(
            &[host, date, ("x-amz-security-token", TOKEN)],
            "",
            "host;x-amz-date;x-amz-security-token",
            "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
        );
    }

    /// The request that we send, signed by botocore 1.44.
    #[test]
    fn a_request_of_ours_is_signed_as_botocore_signs_it() {
        let headers = [
            ("content-type", "application/x-amz-json-1.1"),
            ("host", "kms.eu-central-1.amazonaws.com"),
            ("x-amz-date", DATE),
            ("x-amz-security-token", "token/of+a=role"),
            ("x-amz-target", "TrentService.Sign"),
        ];
        let body = br#"{"KeyId":"1234abcd-12ab-34cd-56ef-1234567890ab","MessageType":"DIGEST"}"#;
        let post = Post { region: "eu-central-1", service: "kms", headers: &headers, body };
        let authorization = post.authorization(&credentials(Some("token/of+a=role")), DATE).unwrap();
        assert_eq!(
            authorization,
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/eu-central-1/kms/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, \
             Signature=699effaabfe36246dce33b26a6acb274aa870aa248955315325d19f7c98824e8"
        );
    }
}

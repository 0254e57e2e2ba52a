use farthing_wire::Limits;
use serde_json::value::RawValue;

use super::{Asked, MAX_LINE_BYTES, Refusal};

/// What a line may cost to read: nothing in the protocol is wider or deeper.
const LIMITS: Limits = Limits { bytes: MAX_LINE_BYTES, values: 512, members: 64 };

/// A request's number, its name and what it says.
type Request = (u64, String, Option<Box<RawValue>>);

/// Reads an agent's line.
pub(crate) fn parse(line: &[u8]) -> Result<Request, Refusal> {
    // Twice: for what it may cost and for names that come twice, and for what it says.
    farthing_wire::json::parse(line, LIMITS).map_err(Refusal::malformed)?;
    let asked: Asked<'_> = serde_json::from_slice(line).map_err(Refusal::malformed)?;
    Ok((asked.id, asked.what, asked.with.map(ToOwned::to_owned)))
}

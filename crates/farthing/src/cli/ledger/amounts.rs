//! Amounts for people: in whole units with their symbol where the token is known, and always in atoms too.

use farthing_engine::native_asset;
use farthing_primitives::{AssetId, Money, Registry};
use serde_json::{Value, json};

pub struct Amounts {
    registry: Registry,
}

impl Amounts {
    pub fn new() -> Self {
        Self { registry: Registry::builtin() }
    }

    /// `USDC`, `wei`, or of a token that we do not know its full name: then amounts are in atoms.
    pub fn unit(&self, asset: &AssetId) -> String {
        match self.registry.get(asset) {
            Some(known) => known.symbol.clone(),
            None if is_native(asset) => "wei".to_owned(),
            None => format!("atoms of {asset}"),
        }
    }

    /// The number alone, in [`Amounts::unit`].
    pub fn plain(&self, asset: &AssetId, atoms: u128) -> String {
        self.registry.get(asset).map_or_else(|| atoms.to_string(), |known| known.format(atoms))
    }

    /// `0.002 USDC`, `21000 wei`.
    pub fn short(&self, money: &Money) -> String {
        format!("{} {}", self.plain(money.asset(), money.atoms()), self.unit(money.asset()))
    }

    /// The same for a narrow column: of a token that we do not know only how many atoms.
    pub fn brief(&self, money: &Money) -> String {
        match self.registry.get(money.asset()) {
            None if !is_native(money.asset()) => format!("{} atoms", money.atoms()),
            _ => self.short(money),
        }
    }

    /// `0.002 USDC (2000 atoms)`, `21000 wei`.
    pub fn long(&self, money: &Money) -> String {
        match self.registry.get(money.asset()) {
            Some(_) => format!("{} ({} atoms)", self.short(money), money.atoms()),
            None => self.short(money),
        }
    }

    pub fn json(&self, money: &Money) -> Value {
        let known = self.registry.get(money.asset());
        json!({
            "atoms": money.atoms().to_string(),
            "asset": money.asset().to_string(),
            "symbol": known.map(|known| known.symbol.clone()),
            "decimals": known.map(|known| known.decimals),
            "amount": self.short(money),
        })
    }
}

fn is_native(asset: &AssetId) -> bool {
    *asset == native_asset(asset.network())
}

#[cfg(test)]
mod tests {
    use farthing_primitives::{Address, Network};

    use super::*;

    #[test]
    fn amounts_say_their_unit() {
        let amounts = Amounts::new();
        let base = Network::eip155(8453);
        let usdc = Registry::builtin().by_symbol(&base, "USDC").unwrap().atoms(2000);
        assert_eq!(amounts.long(&usdc), "0.002 USDC (2000 atoms)");
        assert_eq!(amounts.long(&Money::new(native_asset(&base), 21_000)), "21000 wei");
        let unknown = Money::new(AssetId::new(base, Address::from_evm_bytes([1; 20])), 5);
        assert_eq!(
            amounts.long(&unknown),
            "5 atoms of eip155:8453/erc20:0x0101010101010101010101010101010101010101"
        );
        assert_eq!((amounts.brief(&unknown), amounts.brief(&usdc)), ("5 atoms".into(), "0.002 USDC".into()));
        assert_eq!(amounts.json(&usdc)["decimals"], 6);
    }
}

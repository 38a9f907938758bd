/// What this program calls itself.
public enum Product {
    public static let name = "tproxy"
    /// Told by `--version` and to routers in `hello`; the newest heading of CHANGELOG.md.
    public static let version = "0.1.0"
}

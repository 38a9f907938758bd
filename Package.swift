// swift-tools-version: 6.2
import PackageDescription

// Generic code of one target (the slab, the line framer) is specialised where another uses it: without this a worker
// spends a tenth of its own time on looking generic types up.
let acrossModules: SwiftSetting = .unsafeFlags(["-cross-module-optimization"], .when(configuration: .release))

// Every target is compiled in Swift 6 mode with these settings on top.
let common: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    acrossModules,
]
/// For targets that are not made of C calls: every unsafe construct is marked `unsafe` where it stands.
let safe: [SwiftSetting] = common + [.strictMemorySafety()]

let package = Package(
    name: "tproxy",
    platforms: [.macOS(.v15)],
    products: [.executable(name: "tproxy", targets: ["tproxy"])],
    dependencies: [
        // The command line: parsing, help and completion scripts. Only the arbiter's process ever touches it.
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        // `--config FILE`, by toml++; adds 0.6 MB to the program (stripped), and only the arbiter's process ever touches it,
        // behind a check of its own, for it aborts on some files that are no TOML (Sources/Config/FlatText.swift).
        // There is no YAML: the library for it, Yams, brings Foundation with it, which adds 45 MB.
        .package(url: "https://github.com/LebJe/TOMLKit", from: "0.6.0"),
        // The logging interface every Swift program shares; the handler is ours (Sources/Logs).
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
        // Errno with names and descriptions; typed throws carry it.
        .package(url: "https://github.com/apple/swift-system", from: "1.8.0"),
        // Deque, for the bounded queues of the router client.
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    ],
    targets: [
        // Level 0
        .target(name: "CLinux"),
        // The system's OpenSSL 3 (libssl-dev), linked dynamically: its security updates are the distribution's.
        .systemLibrary(name: "COpenSSL", pkgConfig: "openssl", providers: [.apt(["libssl-dev"])]),
        .target(name: "Addressing", swiftSettings: safe),
        // Level 1
        .target(
            name: "Linux",
            dependencies: ["CLinux", "Addressing", .product(name: "SystemPackage", package: "swift-system")],
            swiftSettings: common),
        .target(name: "RouterProtocol", dependencies: ["Addressing"], swiftSettings: safe),
        .target(name: "Config", dependencies: ["Addressing"], swiftSettings: safe),
        // Level 2
        .target(
            name: "Control",
            dependencies: ["Linux", "Config", "Addressing", .product(name: "SystemPackage", package: "swift-system")],
            swiftSettings: safe),
        .target(
            name: "Logs",
            dependencies: [
                "Linux", "Config", "Addressing", .product(name: "Logging", package: "swift-log"),
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: safe),
        .target(
            name: "Reactor",
            dependencies: ["CLinux", "Linux", .product(name: "SystemPackage", package: "swift-system")],
            swiftSettings: safe),
        .target(
            name: "TLS",
            dependencies: [
                "COpenSSL", "Addressing", "Linux", "Config", "RouterProtocol",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: common),
        // Level 3
        .target(
            name: "Proxy",
            dependencies: [
                "Addressing", "CLinux", "Linux", "RouterProtocol", "Config", "Control", "Logs", "Reactor", "TLS",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "DequeModule", package: "swift-collections"),
            ],
            swiftSettings: safe),
        .target(
            name: "Supervisor",
            dependencies: [
                "Addressing", "Linux", "Config", "Control", "Logs", "Reactor", "TLS",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: safe),
        // Level 4
        .executableTarget(
            name: "tproxy",
            dependencies: [
                "Proxy", "Supervisor", "Config", "Control", "Logs", "Linux",
                .product(name: "SystemPackage", package: "swift-system"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "TOMLKit", package: "TOMLKit"),
            ],
            swiftSettings: common),
        // Tests
        .testTarget(name: "AddressingTests", dependencies: ["Addressing"], swiftSettings: common),
        .testTarget(name: "LinuxTests", dependencies: ["Linux"], swiftSettings: common),
        .testTarget(
            name: "RouterProtocolTests", dependencies: ["RouterProtocol", "Addressing"], swiftSettings: common),
        .testTarget(name: "ConfigTests", dependencies: ["Config"], swiftSettings: common),
        .testTarget(
            name: "OptionsTests", dependencies: ["tproxy", "Config", "Addressing"], swiftSettings: common),
        .testTarget(
            name: "ControlTests", dependencies: ["Control", "Config", "Addressing", "Linux"], swiftSettings: common),
        .testTarget(
            name: "LogsTests",
            dependencies: [
                "Logs", "Linux", "Config", "Addressing", .product(name: "Logging", package: "swift-log"),
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: common),
        .testTarget(name: "ReactorTests", dependencies: ["Reactor", "Linux"], swiftSettings: common),
        .testTarget(
            name: "TLSTests",
            dependencies: [
                "TLS", "CLinux", "COpenSSL", "Addressing", "Linux", "Config", "RouterProtocol",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: common),
        .testTarget(
            name: "ProxyTests",
            dependencies: [
                "Addressing", "Config", "Control", "Proxy", "Linux", "RouterProtocol", "Reactor", "TLS", "COpenSSL",
            ],
            swiftSettings: common),
        .testTarget(
            name: "SupervisorTests",
            dependencies: [
                "Supervisor", "Control", "Config", "Addressing", "Linux", "TLS",
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: common),
        .testTarget(
            name: "ConformanceTests", dependencies: ["RouterProtocol", "Addressing"], swiftSettings: common),
        .testTarget(
            name: "IntegrationTests", dependencies: ["Control", "Linux", "Reactor"], exclude: ["Routers", "Helpers"],
            swiftSettings: common),
    ]
)

import Foundation
import Testing

@testable import Linux

@Suite struct FileWatchTests {
    @Test("a file counts however it is changed, and its like beside it; other files and hidden ones do not")
    func changes() throws {
        let folder = NSTemporaryDirectory() + "watch-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        func write(_ name: String) throws { try Data("x".utf8).write(to: URL(filePath: "\(folder)/\(name)")) }
        try write("route.py")
        try write("table")
        let watch = try FileWatch(["\(folder)/route.py", "\(folder)/table", "/nowhere/at/all.py"])
        #expect(watch.changed() == nil)
        try write("route.py")
        #expect(watch.changed() == "route.py")
        try write("helpers.py")
        #expect(watch.changed() == "helpers.py")
        for name in ["route.log", ".route.py.swp", "route.py~", "tables", ".hidden.py"] { try write(name) }
        #expect(watch.changed() == nil)
        try FileManager.default.moveItem(atPath: "\(folder)/tables", toPath: "\(folder)/new")
        _ = rename("\(folder)/new", "\(folder)/table")
        #expect(watch.changed() == "table")
        try FileManager.default.removeItem(atPath: "\(folder)/helpers.py")
        #expect(watch.changed() == "helpers.py")
        #expect(watch.changed() == nil)
    }
}
